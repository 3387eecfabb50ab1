"""What several seeds say: the mean over runs that differ in their seed alone, and two methods compared seed by seed.

The run is the unit here: its own interval over problems says how well that run was measured, not how much another seed
would differ. Standard library only.
"""

import dataclasses
import math
from collections.abc import Sequence
from statistics import fmean, stdev

from evaluation.metrics.estimates import CONFIDENCE, t_quantile

FEWEST_SEEDS = 3
"""Fewest seeds for a verdict. The spread of two differences is badly known; chance often makes it nearly 0."""
NO_SPREAD = 1e-9
"""Values this close are equal: shares of right answers differ by one problem or not at all, the rest is rounding."""


@dataclasses.dataclass(frozen=True)
class SeedEstimate:
    """A mean over `n` seeds with its 95 % interval (Student's t).

    It has no bounds where no spread can be seen: for one seed, and where all seeds gave the same value, which does not
    make it certain.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def verdict(self) -> str:
        """A difference in words: `higher`, `lower`, `not distinguishable`, or why nothing can be said."""
        if self.n == 1:
            return "one seed: cannot be told"
        if self.n < FEWEST_SEEDS:
            return f"{self.n} seeds: too few to tell"
        if self.low is None or self.high is None:
            return "the same in every seed: no spread to judge by"
        if self.low <= 0 <= self.high:
            return "not distinguishable"
        return "higher" if self.mean > 0 else "lower"


def over_seeds(values: Sequence[float], confidence: float = CONFIDENCE) -> SeedEstimate:
    """Mean of one value a seed: mean +- t_(n-1) sd / sqrt(n).

    Raises:
        ValueError: no values.
    """
    mean, n = _mean(values), len(values)
    if max(values) - min(values) < NO_SPREAD:
        return SeedEstimate(mean, None, None, n)
    half = t_quantile((1 + confidence) / 2, n - 1) * stdev(values) / math.sqrt(n)
    return SeedEstimate(mean, mean - half, mean + half, n)


def widened(half: float, n: int, among: int, confidence: float = CONFIDENCE) -> float:
    """Half of a mean's interval over `n` seeds, widened so that `among` such intervals hold together.

    Each has Student's t at confidence^(1/among): the largest |t| of `among` independent means stays below it with
    `confidence` (Sidak 1967), and that of dependent ones, such as differences to one baseline, at least as surely, by
    his inequality. Dunnett's factor is smaller, but takes one common spread, which methods do not have: with ten
    methods, five seeds and spreads from 2 to 25 points its intervals held together in 87 % of simulated sweeps.

    Args:
        half: as `over_seeds` gives it at `confidence`.
    """
    together = confidence ** (1 / among)
    return half * t_quantile((1 + together) / 2, n - 1) / t_quantile((1 + confidence) / 2, n - 1)


def next_seed(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Prediction interval of one more run: mean +- t_(n-1) sd sqrt(1 + 1/n). None where there is no spread.

    A published number is one run. The interval of a mean is narrower by sqrt(n + 1): that of five runs leaves out
    about one further run in three, that of ten or more about half of them or more.

    Raises:
        ValueError: no values.
    """
    mean, n = _mean(values), len(values)
    if max(values) - min(values) < NO_SPREAD:
        return None
    half = t_quantile((1 + confidence) / 2, n - 1) * stdev(values) * math.sqrt(1 + 1 / n)
    return mean - half, mean + half


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("there are no values")
    mean = fmean(values)
    return 0.0 if abs(mean) < NO_SPREAD else mean
