"""What a prompt asks, without the words that a benchmark or a template puts around its problems.

Two prompts are compared by this: an instruction that both have would make short problems look alike, and one that only
one of them has would hide that they are the same.
"""

import re
from collections.abc import Callable

from evaluation.benchmarks.code.contest_prompts import prompt_of
from evaluation.benchmarks.prompts import choice_prompt, function_prompt, maths_prompt, program_prompt

Question = tuple[str, ...]
"""Words, numbers and operators, without case."""

PLACE = "{prompt}"
_TOKEN = re.compile(r"[^\W_]+|[-+*/^<>=]")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_OPERATORS = frozenset("-+*/^<>=")
_TESTS = re.compile(
    r"\n\s*(?:your code should pass these tests:|assert\s|### Format: You will use the).*", re.DOTALL | re.IGNORECASE
)
"""The tests that are shown with a programming task, or the beginning of its class, and what follows. Runs of numbers in
tests are no task's own."""


def spoken(text: str) -> Question:
    """Words, numbers and operators, without case, punctuation and spacing. Operators count: 2 + 3 is not 2 - 3."""
    return tuple(_TOKEN.findall(_HYPHEN.sub(" ", text).casefold()))


def words(question: Question) -> Question:
    """The question without its operators, which copies of one text write in many ways."""
    return tuple(token for token in question if token not in _OPERATORS)


def question(prompt: str, template: str | None = None) -> Question:
    """What the user message `prompt` asks, without the words around it.

    Args:
        template: what the prompt was made with, with {prompt} for the question, where that is known. The prompts of our
            own tasks are known anyway, also where a user's file holds them.
    """
    asked = spoken(_TESTS.sub("", prompt))
    for before, after in (*([_frame(template)] if template is not None else ()), *_FRAMES):
        if before and asked[: len(before)] == before:
            asked = asked[len(before) :]
        if after and asked[-len(after) :] == after:
            asked = asked[: -len(after)]
    return asked


def _frame(template: str) -> tuple[Question, Question]:
    before, _, after = template.partition(PLACE)
    return spoken(before), spoken(after)


_PROMPTS: tuple[Callable[[str], str], ...] = (
    maths_prompt,
    lambda question: choice_prompt(question, []),
    function_prompt,
    program_prompt,
    lambda question: prompt_of(question, ""),
    # That of the generated tasks, whose modules load by name; a test compares all of these with the data.
    lambda question: f"{question} Put the answer in \\boxed{{}}.",
)
_FRAMES = (*(_frame(prompt(PLACE)) for prompt in _PROMPTS), (spoken("### Question:"), ()))
