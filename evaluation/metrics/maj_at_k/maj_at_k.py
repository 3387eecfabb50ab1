"""Accuracy of the majority vote over the samples of a problem with a 95 % interval, as a module of Hugging Face `evaluate`."""

# `evaluate` reads the imports of this file line by line, one module a line, and takes along what lies beside it and is named with a dot.
from typing import Any

import datasets
import evaluate

from .estimates import majority_share, mean_estimate

DESCRIPTION = """\
Share of problems whose most frequent answer is right. Samples without an answer do not vote. Among answers with equally many votes one is
drawn by lot: a right one among t counts 1/t, so that nothing depends on the order. A problem without any vote counts 0.
"""

INPUTS = """\
Args:
    predictions: 1 for a right sample, 0 for any other.
    references: id of the problem that each sample answers; every problem needs equally many samples.
    votes: what each sample answers; equal texts within a problem are one answer, "" is none. Right samples must agree.
    confidence: level of the interval, 0.95 by default.
Returns:
    maj_at_k, low, high: between 0 and 1. n: problems. k: samples of each.
"""


class MajAtK(evaluate.Metric):  # type: ignore[misc]
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> Any:
        features = datasets.Features(
            {
                "predictions": datasets.Value("int32"),
                "references": datasets.Value("string"),
                "votes": datasets.Value("string"),
            }
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(
        self, predictions: list[int], references: list[str], votes: list[str], confidence: float = 0.95
    ) -> dict[str, float]:
        problems: dict[str, list[tuple[int, str]]] = {}
        for right, problem, vote in zip(predictions, references, votes, strict=True):
            problems.setdefault(problem, []).append((right, vote))
        sizes = {len(samples) for samples in problems.values()}
        if len(sizes) != 1:
            raise ValueError("the problems do not have equally many samples")
        estimate = mean_estimate([[majority_share(samples)] for samples in problems.values()], confidence)
        return {
            "maj_at_k": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": estimate.n,
            "k": sizes.pop(),
        }
