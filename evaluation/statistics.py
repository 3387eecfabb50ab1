"""How sure a number is, and a difference. Standard library only; each function states its formula.

The estimates themselves stand beside the metrics that report them, where they load without this package; they are named here for its
other modules.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean, variance

from evaluation.metrics.estimates import (
    CONFIDENCE,
    Estimate,
    clustered_standard_error,
    majority_share,
    mean_estimate,
    pass_at_k,
    t_quantile,
    wilson_interval,
)

__all__ = [
    "CONFIDENCE",
    "Estimate",
    "PairedDifference",
    "clustered_standard_error",
    "majority_share",
    "mcnemar_exact",
    "mean_estimate",
    "paired_difference",
    "pass_at_k",
    "sign_flip_test",
    "t_quantile",
    "wilson_interval",
]

MCNEMAR, SIGN_FLIPS, SIGN_FLIPS_NORMAL = "exact McNemar", "exact sign-flip test", "sign-flip test, normal approximation"
"""The tests behind a p-value, as they are named beside it."""
_MOST_STEPS = 5_000_000
"""Additions that the exact sign-flip test may take, about a second; beyond, its normal approximation is as good."""


def mcnemar_exact(only_before: int, only_after: int) -> float:
    """Two-sided p-value of McNemar's exact test: of d = only_before + only_after problems that changed, is one direction too frequent?

    min(1, 2 sum_{i <= min} C(d, i) / 2^d), the binomial test of one half; 1 where nothing changed.
    """
    changed = only_before + only_after
    tail = sum(math.comb(changed, i) for i in range(min(only_before, only_after) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**changed)))


def sign_flip_test(differences: Sequence[float]) -> tuple[float, str]:
    """Two-sided p-value of the paired permutation test, and its name.

    If nothing changed but chance, each problem's difference could as well have the other sign: the p-value is the share of all 2^n choices
    of signs whose sum is at least as far from 0 as the one seen. Of differences of -1, 0 and 1 this is McNemar's exact test. Five problems
    all better by the same amount have p = 2/32: nothing is claimed of fewer than six.

    Args:
        differences: of shares of right samples, which are fractions with small denominators; anything else takes the approximation, the
            normal test of sum d / sqrt(sum d^2).
    """
    exact = [Fraction(difference).limit_denominator(10_000) for difference in differences]
    unit = math.lcm(*(fraction.denominator for fraction in exact))
    steps = [int(fraction * unit) for fraction in exact if fraction]
    seen, total = abs(sum(steps)), sum(map(abs, steps))
    if len(steps) * total > _MOST_STEPS:
        return math.erfc(seen / math.sqrt(2 * sum(step * step for step in steps))), SIGN_FLIPS_NORMAL
    chances = [1.0]  # of each sum of the differences that keep a plus
    for step in map(abs, steps):
        halves = [chance / 2 for chance in chances]
        chances = halves + [0.0] * step
        for place, half in enumerate(halves, start=step):
            chances[place] += half
    return min(
        1.0, math.fsum(chance for plus, chance in enumerate(chances) if abs(2 * plus - total) >= seen)
    ), SIGN_FLIPS


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """Change of the mean between two measurements of the same problems.

    Attributes:
        difference, low, high: after minus before, with its confidence interval.
        p_value: two-sided, of no difference.
        n: problems.
        improved, worsened: problems whose value rose or fell.
        test: which test the p-value is of.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    improved: int
    worsened: int
    test: str = MCNEMAR


def paired_difference(
    before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Difference of two checkpoints on the same problems, one value (right or wrong, or the share of right samples) a problem.

    Where all values are 0 or 1: Newcombe's (1998) hybrid score interval for paired proportions (his method 10) and McNemar's exact
    test. Otherwise: difference +- t SE with SE = sd(after - before)/sqrt(n) and n - 1 degrees of freedom, and the sign-flip test. Where no
    spread can be seen (one problem, or all differences equal) the interval is Newcombe's for one sample a problem and independent
    measurements: sameness of a few problems is not certainty.

    Raises:
        ValueError: no problems, not as many before as after, or a value outside 0..1.
    """
    if not before or len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after")
    if any(not 0 <= value <= 1 for value in (*before, *after)):
        raise ValueError("a value is not between 0 and 1")
    n = len(before)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    difference = fmean(differences)
    improved, worsened = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if all(value in (0, 1) for value in (*before, *after)):
        low, high = _newcombe(before, after, confidence)
        return PairedDifference(difference, low, high, mcnemar_exact(worsened, improved), n, improved, worsened)
    p_value, test = sign_flip_test(differences)
    error = math.sqrt(variance(differences) / n) if n > 1 else 0.0
    if error < 1e-12:  # equal differences differ in their last bits
        low, high = _hybrid(fmean(before), fmean(after), n, confidence, phi=0.0)
    else:
        half = t_quantile((1 + confidence) / 2, n - 1) * error
        low, high = max(-1.0, difference - half), min(1.0, difference + half)
    return PairedDifference(difference, low, high, p_value, n, improved, worsened, test)


def _newcombe(before: Sequence[float], after: Sequence[float], confidence: float) -> tuple[float, float]:
    n = len(before)
    both = sum(old == new == 1 for old, new in zip(before, after, strict=True))
    right_before, right_after = int(sum(before)), int(sum(after))
    neither = n - right_before - right_after + both
    only_before, only_after = right_before - both, right_after - both
    spread = math.sqrt(right_before * (n - right_before) * right_after * (n - right_after))
    # The correlation of the two measurements. Newcombe's correction by n/2 keeps "nothing changed" from being certainty.
    association = both * neither - only_before * only_after
    phi = (max(association - n / 2, 0.0) if association > 0 else association) / spread if spread else 0.0
    return _hybrid(right_before / n, right_after / n, n, confidence, phi)


def _hybrid(before: float, after: float, n: int, confidence: float, phi: float) -> tuple[float, float]:
    """Interval of `after` - `before`, two shares of n whose Wilson intervals are put together; `phi` is their correlation."""
    (l1, u1), (l2, u2) = wilson_interval(after * n, n, confidence), wilson_interval(before * n, n, confidence)
    low = (after - l1) ** 2 - 2 * phi * (after - l1) * (u2 - before) + (u2 - before) ** 2
    high = (u1 - after) ** 2 - 2 * phi * (u1 - after) * (before - l2) + (before - l2) ** 2
    return after - before - math.sqrt(max(0.0, low)), after - before + math.sqrt(max(0.0, high))
