"""Accuracy over problems with a 95 % interval, as a module of Hugging Face `evaluate`."""

# `evaluate` reads the imports of this file line by line, one module a line, and takes along what lies beside it and is named with a dot.
from typing import Any

import datasets
import evaluate

from .estimates import mean_estimate

DESCRIPTION = """\
Share of right samples, averaged over problems, with Wilson's score interval; with several samples a problem the interval is that of the
effective sample size, clustered by problem.
"""

INPUTS = """\
Args:
    predictions: 1 for a right sample, 0 for any other.
    references: id of the problem that each sample answers; every problem needs equally many samples.
    confidence: level of the interval, 0.95 by default.
Returns:
    accuracy, low, high: between 0 and 1. n: problems. k: samples of each.
"""


class AccuracyCI(evaluate.Metric):  # type: ignore[misc]
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> Any:
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[int], references: list[str], confidence: float = 0.95) -> dict[str, float]:
        problems: dict[str, list[int]] = {}
        for right, problem in zip(predictions, references, strict=True):
            problems.setdefault(problem, []).append(right)
        samples = list(problems.values())
        estimate = mean_estimate(samples, confidence)
        return {
            "accuracy": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": estimate.n,
            "k": len(samples[0]),
        }
