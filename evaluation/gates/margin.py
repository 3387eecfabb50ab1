"""Whether the mean difference of paired scores lies above or below a margin. Standard library only.

One test serves single answers and several samples a problem alike. The problem is the unit: its difference d is the
share of right samples after minus before, so the mean of all d is the change of the score.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist

from evaluation.metrics.estimates import CONFIDENCE

POWER = 0.8
"""Chance with which the minimum detectable effect is found."""
FEWEST = 10
"""Problems below which nothing is judged: even ten that all change are p = 0.001 at best."""
_NORMAL = NormalDist()
_FINEST = 10_000
"""Largest denominator that a share of right samples is taken to have."""


@dataclasses.dataclass(frozen=True)
class Differences:
    """The differences of `n` problems, each a whole number of `step`, as (difference, problems that have it)."""

    counts: tuple[tuple[float, int], ...]
    n: int
    step: float

    @property
    def mean(self) -> float:
        """Mean over problems, in -1..1."""
        return math.fsum(value * count for value, count in self.counts) / self.n

    @property
    def error(self) -> float:
        """Standard error of the mean, with half a problem added that gained everything and half a one that lost it: a
        few problems without a change do not show that none ever changes (Agresti and Min, 2005, for pairs)."""
        n = self.n + 1
        mean = self.mean * self.n / n
        square = (math.fsum(value * value * count for value, count in self.counts) + 1) / n
        return math.sqrt((square - mean * mean) / self.n)


def differences(before: Sequence[float], after: Sequence[float]) -> Differences:
    """After minus before, problem by problem.

    Args:
        before, after: the share of right samples of each problem, in the same order.

    Raises:
        ValueError: not as many before as after, or fewer than `FEWEST`.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} problems before, {len(after)} after")
    if len(before) < FEWEST:
        raise ValueError(f"{len(before)} common problems, and a gate needs {FEWEST}")
    exact: Counter[Fraction] = Counter()
    for (old, new), count in Counter(zip(before, after, strict=True)).items():
        exact[Fraction(new).limit_denominator(_FINEST) - Fraction(old).limit_denominator(_FINEST)] += count
    unit = math.lcm(*(d.denominator for d in exact))
    return Differences(tuple((float(d), count) for d, count in sorted(exact.items())), len(before), 1 / unit)


def margin_test(seen: Differences, margin: float) -> tuple[float, float]:
    """One-sided p-values of the mean difference against `margin`: that it lies above, and that it lies below.

    What the data would look like with a mean of exactly `margin` is estimated by the restricted maximum likelihood
    over all distributions on the differences seen and on -1 and 1: with single answers that is the null of Tango's
    score test (1998). Under it, the chance of a mean at least as high, or as low, as the one seen is taken from the
    saddlepoint approximation for lattices (Lugannani and Rice, 1980; Daniels, 1987), which holds in the tails where a
    normal approximation claims too much. docs/gates.md has the error rates that were simulated.

    Args:
        margin: in -1..1, exclusive.

    Raises:
        ValueError: a margin outside.
    """
    if not -1 < margin < 1:
        raise ValueError(f"a margin of {margin} is not between -1 and 1")
    null, mean = _restricted(seen, margin), seen.mean - margin
    below = [(-x, p) for x, p in null]
    return _tail(null, mean, seen.n, seen.step), _tail(below, -mean, seen.n, seen.step)


def margin_interval(seen: Differences, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The margins that `margin_test` rejects on neither side, each at (1 - confidence)/2: an interval of the mean."""
    level = (1 - confidence) / 2
    return _bound(seen, level, 0), _bound(seen, level, 1)


def detectable(seen: Differences, level: float, side: int) -> float:
    """Minimum detectable effect: how far beyond a margin the true mean has to lie to be found there with `POWER`.

    The distance between margin and mean at which `margin_test` rejects at `level`, and the normal quantile of `POWER`
    times the standard error, both of what was seen.

    Args:
        level: of the one-sided test.
        side: 0 for a mean above the margin, 1 for one below.
    """
    return abs(seen.mean - _bound(seen, level, side)) + _NORMAL.inv_cdf(POWER) * seen.error


def detectable_difference(seen: Differences, level: float = 1 - CONFIDENCE) -> float:
    """Minimum detectable effect of a two-sided test of no difference, in the direction in which it is larger. Half a
    step is added for the exact tests, whose p-values come in steps."""
    return max(detectable(seen, level / 2, side) for side in (0, 1)) + seen.step / (2 * seen.n)


def problems_needed(n: int, detectable: float, distance: float) -> int | None:
    """Problems of which an effect of `distance` would be found with `POWER`, where of `n` it has to be `detectable`;
    None where there is no distance. The width goes with 1/sqrt(n); with few problems it falls faster, so this is
    rather too many than too few."""
    return math.ceil(n * (detectable / distance) ** 2) if distance else None


def _bound(seen: Differences, level: float, side: int) -> float:
    """The margin at which the one-sided p-value is `level`; the end of the scale where every problem lies there."""
    inside, outside = seen.mean, (1.0 if side else -1.0)
    if inside == outside:
        return outside
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if margin_test(seen, middle)[side] > level else (inside, middle)
    return outside


def _restricted(seen: Differences, margin: float) -> list[tuple[float, float]]:
    """(x, probability) with x = difference - margin and mean 0: the likeliest distribution on what was seen and, where
    that needs it, on the end of the scale."""
    cells = [(value - margin, count / seen.n) for value, count in seen.counts]
    mean = math.fsum(x * p for x, p in cells)
    if mean == 0:
        return cells
    end = -1 - margin if mean > 0 else 1 - margin
    limit = -1 / end

    def pull(tilt: float) -> float:
        return math.fsum(p * x / (1 + tilt * x) for x, p in cells)

    if all(abs(x - end) > 1e-12 for x, _ in cells) and pull(limit) * mean >= 0:
        tilted = [(x, p / (1 + limit * x)) for x, p in cells]
        return [*tilted, (end, 1 - math.fsum(p for _, p in tilted))]
    low, high = 0.0, limit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if pull(middle) * mean > 0 else (low, middle)
    return [(x, p / (1 + low * x)) for x, p in cells]


def _tail(null: list[tuple[float, float]], mean: float, n: int, step: float) -> float:
    """Chance that the mean of n draws from `null`, whole numbers of `step` apart, is at least `mean`."""
    cells = [(x, p) for x, p in null if p > 0]
    # Where each problem moved by as much, no two means are as near as a step: with +1 and -1 alone they are two apart.
    step *= math.gcd(*(round((x - cells[0][0]) / step) for x, _ in cells)) or 1
    at = mean - step / (2 * n)  # between this value and the one below it
    if at <= min(x for x, _ in cells):
        return 1.0
    tilt, cumulant, spread = _tilted(cells, at)
    w = math.copysign(math.sqrt(max(0.0, 2 * n * (tilt * at - cumulant))), tilt)
    if abs(w) < 1e-4:
        return 0.5
    u = 2 / step * math.sinh(tilt * step / 2) * math.sqrt(n * spread)
    tail = 0.5 * math.erfc(w / math.sqrt(2)) + math.exp(-w * w / 2) / math.sqrt(2 * math.pi) * (1 / u - 1 / w)
    return min(1.0, max(0.0, tail))


def _tilted(cells: list[tuple[float, float]], at: float) -> tuple[float, float, float]:
    """The tilt t at which the cells' mean, weighted with exp(t x), is `at`; the cumulant log sum p exp(t x) there, and
    the weighted variance."""
    highest, lowest = max(x for x, _ in cells), min(x for x, _ in cells)
    tilt, low, high = 0.0, -math.inf, math.inf
    for _ in range(100):
        top = max(tilt * highest, tilt * lowest)
        weights = [(x, p * math.exp(tilt * x - top)) for x, p in cells]
        total = math.fsum(w for _, w in weights)
        mean = math.fsum(x * w for x, w in weights) / total
        spread = math.fsum((x - mean) ** 2 * w for x, w in weights) / total
        if abs(mean - at) < 1e-13:
            break
        low, high = (tilt, high) if mean < at else (low, tilt)
        step = tilt + (at - mean) / spread if spread > 1e-300 else math.nan
        if not low < step < high:
            step = (low + high) / 2 if math.isfinite(low + high) else 2 * tilt + math.copysign(1.0, at - mean)
        if step == tilt:
            break
        tilt = step
    return tilt, top + math.log(total), spread
