"""MATH-500: 500 test problems of MATH (Hendrycks et al., 2021), chosen by Lightman et al. (arXiv:2305.20050)."""

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem

NAME = "math500"
SIZE = 500


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: problem, answer (bare LaTeX), and unique_id or id; ids become as short as precalculus/807."""
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"{NAME}, row {number}"
        name = text(row, ("unique_id", "id"), where)
        problems.append(
            Problem(
                id=name.removeprefix(f"{NAME}-").removeprefix("test/").removesuffix(".json"),
                benchmark=NAME,
                kind="maths",
                prompt=maths_prompt(text(row, ("problem",), where).strip()),
                gold=text(row, ("answer",), where).strip(),
                meta={column: row[column] for column in ("subject", "level") if column in row},
            )
        )
    return check_set(problems, SIZE, NAME)


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZE,
    digest="40d5f33d34a3",
    sources={"test": Source(local=f"{NAME}/{NAME}.jsonl.gz", hub="HuggingFaceH4/MATH-500", hub_split="test")},
    parse=parse,
)
