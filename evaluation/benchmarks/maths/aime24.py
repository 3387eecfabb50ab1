"""AIME 2024: both papers, 30 problems with integers from 0 to 999 (sources write leading zeros) as answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.maths.contest import parse_contest
from evaluation.records import Problem

NAME = "aime24"
SIZE = 30


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """The 30 problems, AIME I before AIME II. Columns: problem, answer, url."""
    return parse_contest(NAME, "2024", ("I", "II"), rows, SIZE)


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZE,
    digest="2e6ab86e7f70",
    # The hub calls its only split "train"; it is an evaluation set all the same.
    sources={"test": Source(local="aime24/aime24.jsonl", hub="HuggingFaceH4/aime_2024", hub_split="train")},
    parse=parse,
)
