"""Whether a published number comes back: the same within a tolerance, another one, or not to be told from this n."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from evaluation.metrics.estimates import CONFIDENCE, mean_estimate, t_quantile, wilson_interval
from evaluation.statistics import SIGNIFICANCE, hybrid_interval, mcnemar_exact, paired_difference

REPRODUCED, NOT_REPRODUCED, UNDECIDABLE = "reproduced", "not reproduced", "undecidable at this n"
EQUIVALENCE = 1 - 2 * SIGNIFICANCE
"""Confidence of the interval that has to lie within the tolerance: two one-sided tests at 5 % each."""
INDEPENDENT, SAME_PROBLEMS = "independent problems", "the same problems"
_MOST = 10**8
"""Where the search for a number that would decide gives up."""

Interval = tuple[float, float]
Intervals = Callable[[float], Interval]
"""Confidence -> interval of the difference."""


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A measured share of right answers beside a published one; shares, differences and tolerances are in 0..1.

    Attributes:
        verdict: `REPRODUCED`, `NOT_REPRODUCED` or `UNDECIDABLE`.
        published, n_published: the number, and of how many problems it is.
        measured, n, k: the share here, of n problems with k samples each.
        difference, low, high: measured minus published, with its 95 % interval.
        low_90, high_90: its 90 % interval, which decides about equivalence.
        tolerance: the difference that counts as none.
        smallest_tolerance: the tolerance from which on this is reproduced.
        basis: what the intervals take for granted, `INDEPENDENT` or `SAME_PROBLEMS`.
        problems_needed: of an undecidable one on the basis `INDEPENDENT`, the problems here that would decide if both
            shares stayed what they are; None where none are enough, the published number having an error of its own.
        problems_needed_both: the same, if both numbers were of so many problems; None where none are enough.
        samples_needed: of an undecidable one on the basis `SAME_PROBLEMS`, the samples a problem that would decide;
            None where none are enough.
        if_agreeing: of an undecidable single sample of the same problems, the verdict if no more than so many problems
            were answered otherwise by the published run; None where even the closest agreement decides nothing.
    """

    verdict: str
    published: float
    n_published: int
    measured: float
    n: int
    k: int
    difference: float
    low: float
    high: float
    low_90: float
    high_90: float
    tolerance: float
    smallest_tolerance: float
    basis: str
    problems_needed: int | None = None
    problems_needed_both: int | None = None
    samples_needed: int | None = None
    if_agreeing: tuple[str, int] | None = None


def reproduction(
    published: float, n_published: int, problems: Sequence[Sequence[float]], tolerance: float, same_problems: bool
) -> Reproduction:
    """Compare a published share with the samples of this run.

    `REPRODUCED` where the 90 % interval of the difference lies within the tolerance (two one-sided tests at 5 %:
    Schuirmann, 1987); otherwise `NOT_REPRODUCED` where the 95 % interval leaves out 0; otherwise `UNDECIDABLE`.

    The published number is itself a measurement, of one sample a problem. What its error has in common with that of
    this run cannot be seen in one number. The basis `INDEPENDENT` takes it for nothing: Newcombe's interval of two
    shares, Wilson's for each. If the problems are the same ones, that interval is too wide, so that both claims are
    made too rarely rather than too often.

    Several samples of the same problems here show what two runs do not share, the scatter of one problem's samples: w,
    the mean over problems of k/(k - 1) p (1 - p). On the basis `SAME_PROBLEMS` the standard error is
    sqrt(w (1 + 1/k) / n), the 1 being the published sample's, and the quantile is Student's, with a degree of freedom
    for each problem but one whose samples scatter. Where fewer than two do, the basis is the other one.
    It takes for granted that the published run's samples scatter as these do. That holds where it is the same model;
    one that differs may scatter more, and is then called `REPRODUCED` in more than 5 % of the cases at the tolerance.

    Args:
        published: share of right answers.
        n_published: how many problems it is of.
        problems: for each problem of this run its samples, 1 right and 0 wrong, equally many of each.
        tolerance: the greatest difference that counts as none, above 0.
        same_problems: whether both are of exactly the same problems.

    Raises:
        ValueError: a share or tolerance outside 0..1, no problems, or not equally many samples of each.
    """
    if not 0 <= published <= 1 or n_published < 1 or not 0 < tolerance < 1:
        raise ValueError(f"{published} of {n_published} problems, with a tolerance of {tolerance}")
    measured, n, k = mean_estimate(problems).value, len(problems), len(problems[0])
    means, difference = [fmean(samples) for samples in problems], measured - published
    scattering = sum(0 < mean < 1 for mean in means)
    on_same = same_problems and scattering > 1

    def seen(level: float) -> Interval:
        estimate = mean_estimate(problems, level)
        return estimate.low, estimate.high

    def independent(here: Intervals, there: int) -> Intervals:
        return lambda level: hybrid_interval(published, _wilson(published, there, level), measured, here(level), phi=0)

    levels = (CONFIDENCE, EQUIVALENCE) if on_same else ()
    quantiles = {level: t_quantile((1 + level) / 2, scattering - 1) for level in levels}

    def paired(samples: int) -> Intervals:
        error = math.sqrt(fmean(p * (1 - p) for p in means) * k / (k - 1) * (1 + 1 / samples) / n)
        return lambda level: (difference - quantiles[level] * error, difference + quantiles[level] * error)

    def decides(intervals: Intervals) -> bool:
        return _verdict(intervals, tolerance) != UNDECIDABLE

    intervals = paired(k) if on_same else independent(seen, n_published)
    (low, high), (low_90, high_90) = intervals(CONFIDENCE), intervals(EQUIVALENCE)
    result = Reproduction(
        verdict=_verdict(intervals, tolerance),
        published=published,
        n_published=n_published,
        measured=measured,
        n=n,
        k=k,
        difference=difference,
        low=low,
        high=high,
        low_90=low_90,
        high_90=high_90,
        tolerance=tolerance,
        smallest_tolerance=max(-low_90, high_90),
        basis=SAME_PROBLEMS if on_same else INDEPENDENT,
    )
    if result.verdict != UNDECIDABLE:
        return result
    if on_same:
        return dataclasses.replace(result, samples_needed=_least(k, lambda samples: decides(paired(samples))))
    return dataclasses.replace(
        result,
        problems_needed=_least(n, lambda n: decides(independent(partial(_wilson, measured, n), n_published))),
        problems_needed_both=_least(1, lambda n: decides(independent(partial(_wilson, measured, n), n))),
        if_agreeing=_if_agreeing(published, measured, n, tolerance) if same_problems and k == 1 else None,
    )


def _wilson(share: float, n: int, level: float) -> Interval:
    return wilson_interval(share * n, n, level)


def _paired(before: Sequence[float], after: Sequence[float], level: float) -> Interval:
    found = paired_difference(before, after, level)
    return found.low, found.high


def _verdict(intervals: Intervals, tolerance: float) -> str:
    low, high = intervals(EQUIVALENCE)
    if -tolerance <= low and high <= tolerance:
        return REPRODUCED
    low, high = intervals(CONFIDENCE)
    return UNDECIDABLE if low <= 0 <= high else NOT_REPRODUCED


def _least(start: int, holds: Callable[[int], bool]) -> int | None:
    """The least number from `start` on for which a condition holds that, once it does, goes on to; None beyond
    `_MOST`."""
    high = start
    while not holds(high):
        if high > _MOST:
            return None
        low, high = high, 2 * high
    if high == start:
        return start
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _if_agreeing(published: float, measured: float, n: int, tolerance: float) -> tuple[str, int] | None:
    """The verdict of the paired comparison, which the published run's answers would allow, and the most problems, of n,
    that one run alone may then have solved."""
    before, after = round(published * n), round(measured * n)
    found = None
    for worse in range(max(0, before - after), min(before, n - after) + 1):  # solved by the published run alone
        better = after - before + worse
        both, neither = before - worse, n - after - worse
        old = [1] * both + [1] * worse + [0] * better + [0] * neither
        new = [1] * both + [0] * worse + [1] * better + [0] * neither
        verdict = _verdict(partial(_paired, old, new), tolerance)
        if verdict == NOT_REPRODUCED and mcnemar_exact(worse, better) >= SIGNIFICANCE:
            verdict = UNDECIDABLE
        if verdict == UNDECIDABLE or (found is not None and verdict != found[0]):
            break
        found = verdict, worse + better
    return found
