"""Keeping the rate of false alarms over several benchmarks, and over nights without an end."""

from collections.abc import Sequence

LEVEL = 0.05
"""Chance of a false alarm over all benchmarks and nights, and of a false PASS."""


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's step-down method (1979), in the order given.

    Those below a level are claimed: whatever depends on what, the chance of a false claim among them is at most it.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def spend(level: float, look: int) -> float:
    """What look number `look` (from 1) at the same anchor may spend of `level`: level / (look (look + 1)).

    After t looks level t/(t + 1) is spent, so a schedule without an end never spends more than `level`. It is alpha
    spending (Lan and DeMets, 1983) with the parts added up rather than integrated over their joint distribution: it
    holds however the looks depend on each other, and those at one anchor do. The sequence is one of those that Foster
    and Stine (2008) name for tests that never end.

    Raises:
        ValueError: a look before the first.
    """
    if look < 1:
        raise ValueError(f"look {look}: the first is number 1")
    return level / (look * (look + 1))


def sample_looks(samples: int, most: int) -> list[int]:
    """After how many samples of a problem a check is looked at that may have up to `most`: `samples` at first, then
    twice as many each time. Claims at each look take 1/number of looks of the level (Bonferroni), so that the chance of
    a false one at any of them is at most the level, however they depend on each other."""
    looks = [samples]
    while looks[-1] < most:
        looks.append(min(2 * looks[-1], most))
    return looks
