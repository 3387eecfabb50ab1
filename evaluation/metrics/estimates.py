"""The estimates behind the metrics: standard library only; each function states its formula.

A *problem* is the unit: several samples of one problem are not independent, so every interval here treats the problem,
not the sample, as the draw. Nothing else of this package is imported: `evaluate` takes this file along with the
metrics to where the package is not installed.
"""

import dataclasses
import math
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

    (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n) with n = trials and z the normal quantile of
    (1 + confidence)/2. Unlike p +- z sqrt(p (1 - p)/n) it does not shrink to a point at 0 and 1. `trials` may be
    fractional (an effective sample size).

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
    """Unbiased estimate of the chance that at least one of k samples is right.

    1 - C(samples - correct, k)/C(samples, k): Chen et al., 2021 (arXiv:2107.03374), equation 1, in exact arithmetic.

    Raises:
        ValueError: k is above the number of samples, or the counts are impossible.
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

    sqrt(sum (m_i - m)^2 / (n (n - 1))) with m_i the mean of problem i, m the mean of all m_i, and n problems with
    equally many samples. 0 for a single problem, of which no spread can be seen.

    Raises:
        ValueError: no problems, or not equally many samples of each.
    """
    means = _problem_means(problems)
    return math.sqrt(variance(means) / len(means)) if len(means) > 1 else 0.0


def mean_estimate(
    problems: Sequence[Sequence[float]], confidence: float = CONFIDENCE, samples: int | None = None
) -> Estimate:
    """Mean over problems of values in 0..1, with Wilson's interval at the effective sample size.

    With one 0-or-1 value a problem this is Wilson's interval over n problems. With several, n is replaced by
    p (1 - p)/SE^2 (z/t)^2: SE is clustered by problem, z and t are the quantiles of the normal distribution and of
    Student's with n - 1 degrees of freedom (Korn and Graubard, 1998: a spread seen in few problems is itself
    uncertain). It lies between n (the samples of a problem all agree) and n times the samples (they are as good as
    independent). No spread at all counts as n, so that 0 of 30 is never certain, however often each was sampled.

    Args:
        problems: the values of each problem's samples, equally many of each.
        confidence: level of the interval.
        samples: independent tries that a problem's one value is made of (n // k for pass@k); None: each value is one.

    Raises:
        ValueError: no problems, not equally many samples of each, or a value outside 0..1.
    """
    means = _problem_means(problems)
    if any(not 0 <= value <= 1 for values in problems for value in values):
        raise ValueError("a value is not between 0 and 1")
    n, p = len(means), fmean(means)
    effective, most = float(n), n * (samples or len(problems[0]))
    error = clustered_standard_error(problems)
    if most > n and error > 0:
        shrink = _quantile(confidence) / t_quantile((1 + confidence) / 2, n - 1)
        effective = min(max(p * (1 - p) / error**2 * shrink**2, n), most)
    low, high = wilson_interval(min(p * effective, effective), effective, confidence)
    return Estimate(p, low, high, n)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile above one half of Student's t distribution, by bisection of its distribution function.

    Raises:
        ValueError: no degree of freedom, or a probability outside 0.5..1.
    """
    if degrees < 1 or not 0.5 <= probability < 1:
        raise ValueError(f"t quantile of {probability} with {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while _t_distribution(high, degrees) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_distribution(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _t_distribution(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0 and whole degrees of freedom, in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(theta)
    term = total = cosine if degrees % 2 else 1.0
    for index in range(3 if degrees % 2 else 2, degrees - 1, 2):
        term *= cosine * cosine * (index - 1) / index
        total += term
    central = (
        (theta + (math.sin(theta) * total if degrees > 1 else 0.0)) * 2 / math.pi
        if degrees % 2
        else math.sin(theta) * total
    )
    return (1 + central) / 2


def _problem_means(problems: Sequence[Sequence[float]]) -> list[float]:
    if not problems or not problems[0]:
        raise ValueError("there are no samples")
    if len({len(samples) for samples in problems}) > 1:
        raise ValueError("the problems do not have equally many samples")
    return [fmean(samples) for samples in problems]


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
