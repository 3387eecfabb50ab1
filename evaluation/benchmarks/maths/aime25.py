"""AIME 2025: both papers, 30 problems whose answers are integers from 0 to 999."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evaluation.benchmarks.base import Source
from evaluation.benchmarks.maths.contest import contest_benchmark


def _named(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows with the contest and the number as ids, since no source has links.

    Rows with plain numbers for ids (the hub's) are in the order of the papers, and so get the ids of the local file.
    """
    for place, row in enumerate(rows):
        by_place = f"{'I' if place < 15 else 'II'}-{place % 15 + 1:02d}"
        number = str(row.get("id"))
        yield {**row, "id": by_place if number == str(place) else number.removeprefix("aime25-")}


BENCHMARK = contest_benchmark(
    "aime25",
    "2025",
    ("I", "II"),
    size=30,
    digest="187e1aaf0d5d",
    source=Source(local="aime25/aime25.jsonl", hub="math-ai/aime25", hub_split="test"),
    prepare=_named,
)
