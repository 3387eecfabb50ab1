"""How sure a number is. Standard library only; each function states its formula.

A *problem* is the unit: several samples of one problem are not independent, so every interval here treats the problem, not the sample, as
the draw.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist, fmean, variance

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over `n` problems with its confidence interval."""

    value: float
    low: float
    high: float
    n: int


def wilson_interval(successes: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion p = successes / trials (Wilson, 1927).

    (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), with z the normal quantile of (1 + confidence)/2 and n = trials.
    Unlike p +- z sqrt(p (1 - p)/n) it does not shrink to a point at 0 and 1. `trials` may be fractional (an effective sample size).

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    z = _quantile(confidence)
    p, scale = successes / trials, 1 + z * z / trials
    centre = (p + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    # At 0 and 1 the bound is exact; rounding would put it a hair beside.
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is right: 1 - C(samples - correct, k)/C(samples, k).

    Source: Chen et al., 2021 (arXiv:2107.03374), equation 1, in exact arithmetic.

    Raises:
        ValueError: k above the number of samples, which nothing can be said about, or impossible counts.
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} right of {samples} samples")
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {samples} samples of a problem")
    return float(1 - Fraction(math.comb(samples - correct, k), math.comb(samples, k)))


def majority_share(samples: Sequence[tuple[int, str]]) -> float:
    """Chance that the most frequent answer of one problem is right, ties broken by lot; 0 where nobody votes.

    Args:
        samples: (1 if right else 0, vote); equal votes are one answer, an empty one is none.

    Raises:
        ValueError: an answer is right in one sample and wrong in another, or two answers are right.
    """
    votes = Counter(vote for _, vote in samples if vote)
    right = {vote for correct, vote in samples if correct and vote}
    if len(right) > 1 or any(vote in right and not correct for correct, vote in samples):
        raise ValueError(f"right answers must all have one vote and wrong ones another, not {sorted(right)}")
    first = [vote for vote, count in votes.items() if count == max(votes.values())]
    return len(right & set(first)) / len(first) if first else 0.0


def clustered_standard_error(problems: Sequence[Sequence[float]]) -> float:
    """Standard error of the mean over all samples, with the samples of one problem as a cluster.

    sqrt(sum (m_i - m)^2 / (n (n - 1))) with m_i the mean of problem i, m the mean of all m_i, and n problems with equally many samples.
    0 for a single problem, of which no spread can be seen.

    Raises:
        ValueError: no problems, or not equally many samples of each.
    """
    means = _problem_means(problems)
    return math.sqrt(variance(means) / len(means)) if len(means) > 1 else 0.0


def mean_estimate(problems: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> Estimate:
    """Mean over problems of values in 0..1, with Wilson's interval at the effective sample size.

    With one 0-or-1 value a problem this is Wilson's interval over n problems. With several, n is replaced by p (1 - p)/SE^2, SE
    clustered by problem: between n (the samples of a problem all agree) and n times the samples (they are as good as independent). No
    spread at all counts as n, so that 0 of 30 is never certain, however often each problem was sampled.

    Raises:
        ValueError: no problems, not equally many samples of each, or a value outside 0..1.
    """
    means = _problem_means(problems)
    if any(not 0 <= value <= 1 for samples in problems for value in samples):
        raise ValueError("a value is not between 0 and 1")
    n, p = len(means), fmean(means)
    effective = float(n)
    error = clustered_standard_error(problems)
    if len(problems[0]) > 1 and error > 0:
        effective = min(max(p * (1 - p) / error**2, n), n * len(problems[0]))
    low, high = wilson_interval(min(p * effective, effective), effective, confidence)
    return Estimate(p, low, high, n)


def bootstrap_interval(
    problems: Sequence[Sequence[float]], seed: int, resamples: int = 2000, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of the mean when whole problems are drawn again, with replacement, `resamples` times.

    Raises:
        ValueError: no problems, or not equally many samples of each.
    """
    means = _problem_means(problems)
    rng = random.Random(seed)
    drawn = sorted(fmean(rng.choices(means, k=len(means))) for _ in range(resamples))
    tail = (1 - confidence) / 2
    return drawn[math.floor(tail * (resamples - 1))], drawn[math.ceil((1 - tail) * (resamples - 1))]


def mcnemar_exact(only_before: int, only_after: int) -> float:
    """Two-sided p-value of McNemar's exact test: of d = only_before + only_after problems that changed, is one direction too frequent?

    min(1, 2 sum_{i <= min} C(d, i) / 2^d), the binomial test of one half; 1 where nothing changed.
    """
    changed = only_before + only_after
    tail = sum(math.comb(changed, i) for i in range(min(only_before, only_after) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**changed)))


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """Change of the mean between two measurements of the same problems.

    Attributes:
        difference, low, high: after minus before, with its confidence interval.
        p_value: two-sided, of no difference.
        n: problems.
        improved, worsened: problems whose value rose or fell.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    improved: int
    worsened: int


def paired_difference(before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE) -> PairedDifference:
    """Difference of two checkpoints on the same problems, one value (right or wrong, or the share of right samples) a problem.

    Where all values are 0 or 1: Newcombe's (1998) hybrid score interval for paired proportions (his method 10) and McNemar's exact
    test. Otherwise: difference +- z SE with SE = sd(after - before)/sqrt(n) and the matching normal test, which wants some 30 problems.

    Raises:
        ValueError: no problems, or not as many before as after.
    """
    if not before or len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after")
    n = len(before)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    difference = fmean(differences)
    improved, worsened = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if all(value in (0, 1) for value in (*before, *after)):
        low, high = _newcombe(before, after, confidence)
        return PairedDifference(difference, low, high, mcnemar_exact(worsened, improved), n, improved, worsened)
    error = math.sqrt(variance(differences) / n) if n > 1 else math.inf
    half = _quantile(confidence) * error
    p_value = 1.0 if error == math.inf else (math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else float(difference == 0))
    return PairedDifference(difference, max(-1.0, difference - half), min(1.0, difference + half), p_value, n, improved, worsened)


def _newcombe(before: Sequence[float], after: Sequence[float], confidence: float) -> tuple[float, float]:
    n = len(before)
    both = sum(old == new == 1 for old, new in zip(before, after, strict=True))
    right_before, right_after = int(sum(before)), int(sum(after))
    neither = n - right_before - right_after + both
    only_before, only_after = right_before - both, right_after - both
    p1, p2 = right_after / n, right_before / n
    (l1, u1), (l2, u2) = wilson_interval(right_after, n, confidence), wilson_interval(right_before, n, confidence)
    spread = math.sqrt(right_before * (n - right_before) * right_after * (n - right_after))
    # The correlation of the two measurements. Newcombe's correction by n/2 keeps "nothing changed" from being certainty.
    association = both * neither - only_before * only_after
    phi = (max(association - n / 2, 0.0) if association > 0 else association) / spread if spread else 0.0
    low = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    high = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    return p1 - p2 - math.sqrt(max(0.0, low)), p1 - p2 + math.sqrt(max(0.0, high))


def _problem_means(problems: Sequence[Sequence[float]]) -> list[float]:
    if not problems or not problems[0]:
        raise ValueError("there are no samples")
    if len({len(samples) for samples in problems}) > 1:
        raise ValueError("the problems do not have equally many samples")
    return [fmean(samples) for samples in problems]


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
