"""AMC 12 of 2023 (A and B): the 40 problems with an integer answer.

Not the 83 problems of 2022 and 2023 that some call AMC. Some sources write 27.0 for 27.
"""

from evaluation.benchmarks.base import Source
from evaluation.benchmarks.maths.contest import contest_benchmark

BENCHMARK = contest_benchmark(
    "amc23",
    "2023",
    ("12A", "12B"),
    size=40,
    digest="d14fbc7849ac",
    source=Source(local="amc23/amc23.jsonl", hub="math-ai/amc23", hub_split="test"),
)
