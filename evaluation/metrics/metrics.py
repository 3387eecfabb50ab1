"""Accuracy, pass@k and the majority vote over problems, each with its interval: a module of Hugging Face `evaluate`.

`evaluate.load(FOLDER, "accuracy_ci" | "pass_at_k" | "maj_at_k")` needs this file and the one beside it, no package of
ours and no hub. Every metric takes one row a sample; every problem needs equally many of them.
"""

# `evaluate` finds the files to take along by reading this one line by line: an import has to fit on its line.
from collections.abc import Callable
from typing import Any, TypeVar

import datasets
import evaluate

from .estimates import Estimate, majority_share, mean_estimate
from .estimates import pass_at_k as chance_of_one

T = TypeVar("T")


def accuracy_ci(predictions: list[int], references: list[str], confidence: float = 0.95) -> dict[str, float]:
    """Share of right samples, averaged over problems, with Wilson's score interval.

    With several samples a problem the interval is that of the effective sample size, clustered by problem.

    Args:
        predictions: 1 for a right sample, 0 for any other.
        references: id of the problem that each sample answers.
        confidence: level of the interval.

    Returns:
        accuracy, low, high: between 0 and 1. n: problems. k: samples of each.
    """
    problems = _by_problem(references, predictions)
    return _result("accuracy", mean_estimate(problems, confidence), len(problems[0]))


def pass_at_k(predictions: list[int], references: list[str], k: int = 1, confidence: float = 0.95) -> dict[str, float]:
    """Chance that at least one of k samples of a problem is right, averaged over problems.

    Estimated without bias from n >= k samples (Chen et al., 2021, arXiv:2107.03374).

    Args:
        predictions: 1 for a right sample, 0 for any other.
        references: id of the problem that each sample answers.
        k: number of tries, at most the number of samples.
        confidence: level of the interval.

    Returns:
        pass_at_k, low, high: between 0 and 1. n: problems. k.
    """
    problems = _by_problem(references, predictions)
    if any(right not in (0, 1) for right in predictions):
        raise ValueError("a prediction is not 0 or 1")
    chances = [[chance_of_one(len(samples), sum(samples), k)] for samples in problems]
    return _result("pass_at_k", mean_estimate(chances, confidence, samples=len(problems[0]) // k), k)


def maj_at_k(
    predictions: list[int], references: list[str], votes: list[str], confidence: float = 0.95
) -> dict[str, float]:
    """Share of problems whose most frequent answer is right.

    Samples without an answer do not vote. Of answers with equally many votes one is drawn by lot: a right one among t
    counts 1/t, so that nothing depends on the order. A problem without any vote counts 0.

    Args:
        predictions: 1 for a right sample, 0 for any other.
        references: id of the problem that each sample answers.
        votes: what each sample answers; equal texts within a problem are one answer, "" is none. Right samples must
            agree.
        confidence: level of the interval.

    Returns:
        maj_at_k, low, high: between 0 and 1. n: problems. k: samples of each.
    """
    problems = _by_problem(references, list(zip(predictions, votes, strict=True)))
    shares = [[majority_share(samples)] for samples in problems]
    return _result("maj_at_k", mean_estimate(shares, confidence), len(problems[0]))


METRICS: dict[str, Callable[..., dict[str, float]]] = {
    metric.__name__: metric for metric in (accuracy_ci, maj_at_k, pass_at_k)
}


class ProblemMetric(evaluate.Metric):  # type: ignore[misc]
    """The metric that the configuration's name says; its docstring describes the inputs."""

    def _info(self) -> Any:
        if self.config_name not in METRICS:
            raise ValueError(f"unknown metric {self.config_name!r}; there are {', '.join(METRICS)}")
        usage = METRICS[self.config_name].__doc__
        columns = {"predictions": datasets.Value("int32"), "references": datasets.Value("string")}
        if self.config_name == "maj_at_k":
            columns["votes"] = datasets.Value("string")
        return evaluate.MetricInfo(
            description=usage, citation="", inputs_description=usage, features=datasets.Features(columns)
        )

    def _compute(self, **inputs: Any) -> dict[str, float]:
        return METRICS[self.config_name](**inputs)


def _by_problem(references: list[str], samples: list[T]) -> list[list[T]]:
    """The samples of each problem, in the order of the problems' first samples."""
    problems: dict[str, list[T]] = {}
    for problem, sample in zip(references, samples, strict=True):
        problems.setdefault(problem, []).append(sample)
    if len(set(map(len, problems.values()))) != 1:
        raise ValueError("the problems do not have equally many samples")
    return list(problems.values())


def _result(name: str, estimate: Estimate, k: int) -> dict[str, float]:
    return {name: estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "k": k}
