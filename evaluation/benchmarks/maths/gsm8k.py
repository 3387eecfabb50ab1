"""GSM8K (Cobbe et al., 2021, arXiv:2110.14168): grade-school word problems with worked solutions.

7,473 to train on, 1,319 to test.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, integer, text
from evaluation.records import Problem, RecordError

NAME = "gsm8k"
SIZES = {"train": 7473, "test": 1319}
CALCULATOR = re.compile(r"<<[^<>]*>>")
ANSWER_MARK = "#### "


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: question, and answer, which ends in "#### NUMBER". The set has no ids: they are row numbers from 1."""
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"{NAME}, {split} row {number}"
        solution, mark, answer = text(row, ("answer",), where).rpartition(ANSWER_MARK)
        if not mark or not solution.strip():
            raise RecordError(f"{where}: the answer has no solution followed by {ANSWER_MARK.strip()!r} and a number")
        problems.append(
            Problem(
                id=f"{split}-{number:04d}",
                benchmark=NAME,
                kind="maths",
                prompt=maths_prompt(text(row, ("question",), where).strip()),
                gold=integer(answer, where),
                meta={"solution": solution.strip()},
            )
        )
    return check_set(problems, SIZES[split], f"{NAME} {split}")


def demonstrate(problems: list[Problem], seed: int) -> list[str]:
    """The data set's own solutions without the calculator's <<...>> marks, ending in the boxed answer."""
    return [f"{CALCULATOR.sub('', problem.meta['solution'])}\n\\boxed{{{problem.gold}}}" for problem in problems]


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZES["test"],
    digest="0ee4dcfcafdc",
    sources={
        split: Source(local=f"{NAME}/{split}.jsonl.gz", hub=f"openai/{NAME}", hub_config="main", hub_split=split)
        for split in SIZES
    },
    parse=parse,
    demonstrate=demonstrate,
)
