"""Unbiased pass@k over problems with a 95 % interval, as a module of Hugging Face `evaluate`."""

# `evaluate` reads the imports of this file line by line, one module a line, and takes along what lies beside it and is named with a dot.
from typing import Any

import datasets
import evaluate

from .estimates import mean_estimate, pass_at_k

DESCRIPTION = """\
Chance that at least one of k samples of a problem is right, estimated without bias from n >= k samples (Chen et al., 2021,
arXiv:2107.03374), averaged over problems.
"""

INPUTS = """\
Args:
    predictions: 1 for a right sample, 0 for any other.
    references: id of the problem that each sample answers; every problem needs equally many samples.
    k: number of tries, at most the number of samples.
    confidence: level of the interval, 0.95 by default.
Returns:
    pass_at_k, low, high: between 0 and 1. n: problems. k.
"""


class PassAtK(evaluate.Metric):  # type: ignore[misc]
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> Any:
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(
        self, predictions: list[int], references: list[str], k: int = 1, confidence: float = 0.95
    ) -> dict[str, float]:
        problems: dict[str, list[int]] = {}
        for right, problem in zip(predictions, references, strict=True):
            problems.setdefault(problem, []).append(right)
        if len({len(samples) for samples in problems.values()}) != 1:
            raise ValueError("the problems do not have equally many samples")
        if any(right not in (0, 1) for right in predictions):
            raise ValueError("a prediction is not 0 or 1")
        shares = [[pass_at_k(len(samples), sum(samples), k)] for samples in problems.values()]
        estimate = mean_estimate(shares, confidence, samples=len(next(iter(problems.values()))) // k)
        return {"pass_at_k": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "k": k}
