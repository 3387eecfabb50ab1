"""SVAMP (Patel et al., 2021, arXiv:2103.07191): one-step word problems, varied so that key words alone mislead.

The set is published as one of 1,000, `chal-1` to `chal-1000`. The split is this project's: 500 to train on, 200
to choose settings on, and the last 300 to test.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, integer, text
from evaluation.records import Problem, RecordError

NAME = "svamp"
SPLITS = {"train": range(1, 501), "dev": range(501, 701), "test": range(701, 1001)}


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: ID (`chal-7`), Body, Question, Answer (a whole number). All 1,000 rows, in any order."""
    problems = {}
    for row in rows:
        name = text(row, ("ID",), NAME)
        if not (number := name.removeprefix("chal-")).isdecimal() or int(number) in problems:
            raise RecordError(f"{NAME}: the ID {name!r} is not `chal-` and a number of its own")
        question = f"{text(row, ('Body',), name).strip()} {text(row, ('Question',), name).strip()}"
        gold = integer(row.get("Answer"), f"{NAME}, {name}")
        problems[int(number)] = Problem(
            id=f"chal-{int(number):04d}", benchmark=NAME, kind="maths", prompt=maths_prompt(question), gold=gold
        )
    of_split = [problem for number, problem in sorted(problems.items()) if number in SPLITS[split]]
    return check_set(of_split, len(SPLITS[split]), f"{NAME} {split}")


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=len(SPLITS["test"]),
    digest="ef34f2e97edb",
    sources=dict.fromkeys(SPLITS, Source(local=f"{NAME}/{NAME}.jsonl", hub="ChilleD/SVAMP", hub_split="train+test")),
    parse=parse,
)
