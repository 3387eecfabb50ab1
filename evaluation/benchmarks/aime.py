"""AIME 2024 and 2025: both papers of a year, 30 problems whose answers are integers from 0 to 999.

The sources of 2024 write them with leading zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.contest import parse_contest
from evaluation.records import Problem

SIZE = 30


def parse_2024(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """The 30 problems, AIME I before AIME II. Columns: problem, answer, url."""
    return parse_contest("aime24", "2024", ("I", "II"), rows, SIZE)


def parse_2025(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """The 30 problems, AIME I before AIME II. Columns: problem, answer, id.

    No source has links. Rows with plain numbers for ids (the hub's) stand in the order of the papers, which gives them the ids of the
    local file.
    """
    named = []
    for place, row in enumerate(rows):
        number = str(row.get("id"))
        contest = (
            f"{'I' if place < 15 else 'II'}-{place % 15 + 1:02d}"
            if number == str(place)
            else number.removeprefix("aime25-")
        )
        named.append({**row, "id": contest})
    return parse_contest("aime25", "2025", ("I", "II"), named, SIZE)


AIME_2024 = Benchmark(
    name="aime24",
    kind="maths",
    size=SIZE,
    digest="2e6ab86e7f70",
    # The hub's data set calls its only split "train"; it is an evaluation set all the same.
    sources={"test": Source(local="aime24/aime24.jsonl", hub="HuggingFaceH4/aime_2024", hub_split="train")},
    parse=parse_2024,
)
AIME_2025 = Benchmark(
    name="aime25",
    kind="maths",
    size=SIZE,
    digest="187e1aaf0d5d",
    sources={"test": Source(local="aime25/aime25.jsonl", hub="math-ai/aime25", hub_split="test")},
    parse=parse_2025,
)
