"""Whether two measurements of the same problems differ. Standard library only; each function states its formula."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean

from evaluation.metrics.estimates import CONFIDENCE, t_quantile, wilson_interval

SIGNIFICANCE = 1 - CONFIDENCE
"""Level of the tests: a p-value below it counts as a difference."""
MCNEMAR, SIGN_FLIPS, SIGN_FLIPS_NORMAL = "exact McNemar", "exact sign-flip test", "sign-flip test, normal approximation"
"""Names of the tests, which are shown beside a p-value."""
_MOST_STEPS = 5_000_000
"""Additions that the exact sign-flip test may take, about a second; beyond, its normal approximation is as good."""

_t_quantile = functools.lru_cache(maxsize=64)(t_quantile)  # a history asks for one of them hundreds of times


def mcnemar_exact(only_before: int, only_after: int) -> float:
    """Two-sided p-value of McNemar's exact test of d = only_before + only_after problems that changed.

    min(1, 2 sum_{i <= min} C(d, i) / 2^d), the binomial test of one half; 1 where nothing changed.
    """
    changed = only_before + only_after
    tail = sum(math.comb(changed, i) for i in range(min(only_before, only_after) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**changed)))


def sign_flip_test(differences: Sequence[float]) -> tuple[float, str]:
    """Two-sided p-value of the paired permutation test, and its name.

    By chance alone each problem's difference could as well have the other sign: the p-value is the share of all 2^n
    choices of signs whose sum is at least as far from 0 as the one seen. Of differences of -1, 0 and 1 this is
    McNemar's exact test. Five problems all better by the same amount have p = 2/32: fewer than six are never enough.

    Args:
        differences: of shares of right samples, which are fractions with small denominators. Of others, and of very
            many, the normal approximation is taken: the test of sum d / sqrt(sum d^2).
    """
    exact = [Fraction(difference).limit_denominator(10_000) for difference in differences]
    unit = math.lcm(*(fraction.denominator for fraction in exact))
    steps = [int(fraction * unit) for fraction in exact if fraction]
    seen, total = abs(sum(steps)), sum(map(abs, steps))
    if len(steps) * total > _MOST_STEPS:
        return math.erfc(seen / math.sqrt(2 * sum(step * step for step in steps))), SIGN_FLIPS_NORMAL
    chances = [1.0]  # of each sum of the differences that keep their sign
    for step in map(abs, steps):
        halves = [chance / 2 for chance in chances]
        chances = halves + [0.0] * step
        for place, half in enumerate(halves, start=step):
            chances[place] += half
    tail = math.fsum(chance for plus, chance in enumerate(chances) if abs(2 * plus - total) >= seen)
    return min(1.0, tail), SIGN_FLIPS


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """Change of the mean between two measurements of the same problems.

    Attributes:
        difference, low, high: after minus before, with its confidence interval.
        p_value: two-sided; the hypothesis is that there is no difference.
        n: number of problems.
        improved, worsened: number of problems whose value rose or fell.
        test: name of the test.
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
    """Difference of two checkpoints on the same problems.

    Where all values are 0 or 1: Newcombe's (1998) hybrid score interval for paired proportions (his method 10) and
    McNemar's exact test. Otherwise: difference +- t SE with SE = sd(after - before)/sqrt(n) and n - 1 degrees of
    freedom, and the sign-flip test. Where no spread can be seen (one problem, or all differences equal) the interval is
    Newcombe's for one sample a problem and independent measurements: a few equal differences are not certainty.

    Args:
        before, after: for each problem whether it was solved (0 or 1), or the share of its samples that are right.
        confidence: level of the interval.

    Raises:
        ValueError: no problems, not as many before as after, or a value outside 0..1.
    """
    difference, low, high = paired_interval(before, after, confidence)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    improved, worsened = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if all(value in (0, 1) for value in (*before, *after)):
        p_value, test = mcnemar_exact(worsened, improved), MCNEMAR
    else:
        p_value, test = sign_flip_test(differences)
    return PairedDifference(difference, low, high, p_value, len(before), improved, worsened, test)


def paired_interval(
    before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """(difference, low, high) as `paired_difference` has them, without its test, which takes a hundred times as long.

    Raises:
        ValueError: no problems, not as many before as after, or a value outside 0..1.
    """
    if not before or len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after")
    values = {*before, *after}
    if any(not 0 <= value <= 1 for value in values):
        raise ValueError("a value is not between 0 and 1")
    n = len(before)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    difference = fmean(differences)
    if values <= {0, 1}:
        return difference, *_newcombe(before, after, confidence)
    squares = math.fsum((d - difference) ** 2 for d in differences)
    error = math.sqrt(squares / (n - 1) / n) if n > 1 else 0.0
    if error < 1e-12:  # equal differences differ in their last bits
        return difference, *_hybrid(fmean(before), fmean(after), n, confidence, phi=0.0)
    half = _t_quantile((1 + confidence) / 2, n - 1) * error
    return difference, max(-1.0, difference - half), min(1.0, difference + half)


def _newcombe(before: Sequence[float], after: Sequence[float], confidence: float) -> tuple[float, float]:
    n = len(before)
    both = sum(old == new == 1 for old, new in zip(before, after, strict=True))
    right_before, right_after = int(sum(before)), int(sum(after))
    neither = n - right_before - right_after + both
    only_before, only_after = right_before - both, right_after - both
    spread = math.sqrt(right_before * (n - right_before) * right_after * (n - right_after))
    # The correlation of the measurements. Newcombe's correction by n/2 keeps "nothing changed" from being certainty.
    association = both * neither - only_before * only_after
    phi = (max(association - n / 2, 0.0) if association > 0 else association) / spread if spread else 0.0
    return _hybrid(right_before / n, right_after / n, n, confidence, phi)


def _hybrid(before: float, after: float, n: int, confidence: float, phi: float) -> tuple[float, float]:
    intervals = (wilson_interval(share * n, n, confidence) for share in (before, after))
    return hybrid_interval(before, next(intervals), after, next(intervals), phi)


def hybrid_interval(
    before: float, before_interval: tuple[float, float], after: float, after_interval: tuple[float, float], phi: float
) -> tuple[float, float]:
    """Interval of `after` - `before`, two shares with correlation `phi`, from the interval of each.

    Newcombe's (1998) hybrid score interval where those are Wilson's: his method 10, for independent shares (phi = 0)
    as for paired ones.
    """
    (l1, u1), (l2, u2) = after_interval, before_interval
    low = (after - l1) ** 2 - 2 * phi * (after - l1) * (u2 - before) + (u2 - before) ** 2
    high = (u1 - after) ** 2 - 2 * phi * (u1 - after) * (before - l2) + (before - l2) ** 2
    return after - before - math.sqrt(max(0.0, low)), after - before + math.sqrt(max(0.0, high))
