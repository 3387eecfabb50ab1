"""AIME 2025: both papers, 30 problems whose answers are integers from 0 to 999."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.maths.contest import parse_contest
from evaluation.records import Problem

NAME = "aime25"
SIZE = 30


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """The 30 problems, AIME I before AIME II. Columns: problem, answer, id.

    No source has links. Rows with plain numbers for ids (the hub's) are in the order of the papers, and so get the ids
    of the local file.
    """
    named = []
    for place, row in enumerate(rows):
        number = str(row.get("id"))
        contest = (
            f"{'I' if place < 15 else 'II'}-{place % 15 + 1:02d}"
            if number == str(place)
            else number.removeprefix(f"{NAME}-")
        )
        named.append({**row, "id": contest})
    return parse_contest(NAME, "2025", ("I", "II"), named, SIZE)


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZE,
    digest="187e1aaf0d5d",
    sources={"test": Source(local="aime25/aime25.jsonl", hub="math-ai/aime25", hub_split="test")},
    parse=parse,
)
