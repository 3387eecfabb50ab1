"""AIME 2024: both papers, 30 problems with integers from 0 to 999 (sources write leading zeros) as answers."""

from evaluation.benchmarks.base import Source
from evaluation.benchmarks.maths.contest import contest_benchmark

BENCHMARK = contest_benchmark(
    "aime24",
    "2024",
    ("I", "II"),
    size=30,
    digest="2e6ab86e7f70",
    # The hub calls its only split "train"; it is an evaluation set all the same.
    source=Source(local="aime24/aime24.jsonl", hub="HuggingFaceH4/aime_2024", hub_split="train"),
)
