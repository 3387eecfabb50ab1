"""GPQA Diamond (Rein et al., 2023, arXiv:2311.12022): 198 questions by experts, four options.

The rows name a right answer and three wrong ones. Their order as options is that of the SHA-256 of question and option:
the same everywhere, without a seed, and none of a published evaluation, each of which shuffles in its own way.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import choice_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

NAME = "gpqa_diamond"
SIZE = 198
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: Question, Correct Answer, Incorrect Answer 1 to 3, and Record ID; without it a problem is named by its
    place."""
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"{NAME}, row {number}"
        question = text(row, ("Question",), where).strip()
        right = text(row, ("Correct Answer",), where).strip()
        options = [right, *(text(row, (column,), where).strip() for column in WRONG)]
        if right in options[1:]:
            raise RecordError(f"{where}: the right answer is among the wrong ones: {right!r:.80}")
        options.sort(key=lambda option: hashlib.sha256(f"{question}\0{option}".encode()).hexdigest())
        gold = "ABCD"[options.index(right)]
        name = str(row.get("Record ID") or number)
        problems.append(Problem(name, NAME, "choice", choice_prompt(question, options), gold))
    return check_set(problems, SIZE, NAME)


BENCHMARK = Benchmark(
    name=NAME,
    kind="choice",
    size=SIZE,
    sources={
        "test": Source(
            local=f"{NAME}/{NAME}.jsonl", hub="Idavidrein/gpqa", hub_config="gpqa_diamond", hub_split="train"
        )
    },
    parse=parse,
)
