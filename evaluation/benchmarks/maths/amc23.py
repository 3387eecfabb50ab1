"""AMC 12 of 2023 (A and B): the 40 problems with an integer answer.

Not the 83 problems of 2022 and 2023 that some call AMC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.maths.contest import parse_contest
from evaluation.records import Problem

NAME = "amc23"
SIZE = 40


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """The 40 problems, 12A before 12B. Columns: problem or question, answer (27.0 in some sources), url."""
    return parse_contest(NAME, "2023", ("12A", "12B"), rows, SIZE)


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZE,
    digest="d14fbc7849ac",
    sources={"test": Source(local="amc23/amc23.jsonl", hub="math-ai/amc23", hub_split="test")},
    parse=parse,
)
