"""What a made model reads, as documents of segments, of which some carry the loss."""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks.generated import tiny_code, word_problems
from evaluation.benchmarks.generated.synthetic import split_of, stream
from evaluation.records import read_rows
from stages.base.make.tokenizer import END, START

SHARES = (10, 50, 34, 6)
"""Per cent of arithmetic facts, worked problems, programs and one-step chats in the word_problems corpus.

Programs have a third because their operations have to be copied word for word: with a fifth, some models wrote a
quarter of them wrong in every form of program, and RL then finds no form better than the other."""
FACTS_PER_DOCUMENT = 12


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of a document; only a piece that can be known from what precedes it should carry the loss."""

    text: str
    learn: bool


Document = tuple[Segment, ...]


def text_of(document: Document) -> str:
    """The document's whole text."""
    return "".join(segment.text for segment in document)


def word_problem_documents(n: int, seed: int) -> list[Document]:
    """`n` documents of arithmetic, plain-text worked problems, programs and one-step chats; only the train split's
    computations.

    The model thus learns to calculate and to copy, but sees no worked solution in the chat format: that is left to SFT.
    """
    rng = stream("base", seed)
    makers = (_facts, _worked, _program, _one_step_chat)
    return [make(rng) for make in rng.choices(makers, SHARES, k=n)]


def held_out_documents(n: int, seed: int) -> list[Document]:
    """`n` plain-text worked problems of the dev split, to measure a made model on."""
    return [_worked_document(word_problems.spec_of(problem)) for problem in word_problems.generate("dev", n, seed)]


def train_data_documents(sft_file: Path) -> Iterator[Document]:
    """The rows of a data artifact's `sft.jsonl` as chats; the whole text carries the loss."""
    for _, row in read_rows(sft_file):
        turns = (
            f"{START}{message['role']}\n{message['content']}{END}" for message in [*row["prompt"], *row["completion"]]
        )
        yield (Segment("\n".join(turns), True),)


def _facts(rng: random.Random) -> Document:
    segments = []
    for _ in range(FACTS_PER_DOCUMENT):
        while True:
            left, operator = rng.randint(0, word_problems.LARGEST), rng.choice("+-*")
            step = word_problems.Step("", operator, rng.randint(2, 3 if operator == "*" else 9))
            if 0 <= step.apply(left) <= word_problems.LARGEST:
                break
        segments += [Segment(f"{left}{operator}{step.operand}=", False), Segment(f"{step.apply(left)}\n", True)]
    return (*segments, Segment(END, True))


def _worked(rng: random.Random) -> Document:
    while True:
        spec = word_problems.draw_spec(rng)
        if split_of(spec.computation) == "train":
            return _worked_document(spec)


def _worked_document(spec: word_problems.Spec) -> Document:
    lines, answer = spec.working()
    working = "\n".join(lines)
    prompt = word_problems.to_problem(spec, "train").prompt
    return Segment(f"{prompt}\n", False), Segment(f"{working}\n\\boxed{{{answer}}}{END}", True)


def _program(rng: random.Random) -> Document:
    while True:
        spec = tiny_code.draw_spec(rng)
        if split_of(spec.computation) == "train":
            program = rng.choice((spec.stepwise, spec.stepwise, spec.one_line))
            prompt = tiny_code.to_problem(spec, "train").prompt
            return Segment(f"{prompt}\n", False), Segment(f"{tiny_code.fenced(program)}{END}", True)


def _one_step_chat(rng: random.Random) -> Document:
    spec = word_problems.draw_spec(rng)
    spec = dataclasses.replace(spec, steps=spec.steps[:1])
    prompt = word_problems.to_problem(spec, "train").prompt
    return (
        Segment(f"{START}user\n{prompt}{END}\n{START}assistant\n", False),
        Segment(f"\\boxed{{{spec.answer}}}{END}", True),
    )
