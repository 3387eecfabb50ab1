"""What is claimed of a group: its score, and what changed between two sets of cells. Over seeds; of one seed, over problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from evaluation.comparison import compare
from evaluation.seeds import FEWEST_SEEDS, over_seeds
from pipeline.sweep.report.cells import Cell, Place

SAME = "the same checkpoint"
DIFFERENT_PROTOCOLS = "different protocols"


@dataclasses.dataclass(frozen=True)
class Value:
    """A score, mean over `n` seeds, with its 95 % interval.

    Attributes:
        over: what the interval is over: `seeds`, or `problems` where seeds show no spread. The latter says how well the run was
            measured, and nothing of what another seed would give.
    """

    mean: float
    low: float
    high: float
    n: int
    over: str


@dataclasses.dataclass(frozen=True)
class Change:
    """A difference of scores, mean over `n` pairs of cells of one seed.

    Attributes:
        low, high: of the 95 % interval; None where there is none.
        over: `seeds`, `problems` (one pair of cells, paired problem by problem) or nothing (no interval).
        verdict: `higher`, `lower`, `not distinguishable`, or why that cannot be told.
        p_value, improved, worsened: over problems; else None.
        test: which one the p-value is of; empty where there is none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    over: str
    verdict: str
    p_value: float | None = None
    improved: int | None = None
    worsened: int | None = None
    test: str = ""

    @property
    def tested(self) -> bool:
        """Whether chance could have made it seem a difference: of so few seeds none is claimed."""
        return self.low is not None and (self.over == "problems" or self.n >= FEWEST_SEEDS)


def value(cells: Mapping[str, Cell], place: Place) -> Value:
    """The score of a group's cells (by seed) at one place; the run's own interval where seeds show no spread."""
    results = [cell.results[place] for cell in cells.values()]
    estimate = over_seeds([result["value"] for result in results])
    if estimate.low is not None and estimate.high is not None:
        return Value(estimate.mean, estimate.low, estimate.high, estimate.n, "seeds")
    return Value(estimate.mean, results[0]["low"], results[0]["high"], estimate.n, "problems")


def change(before: Mapping[str, Cell], old: Place, after: Mapping[str, Cell], new: Place) -> Change | None:
    """From `old` of the cells before (by seed) to `new` of those after, seed by seed; None where they have no seed in common."""
    pairs = [(before[seed], after[seed]) for seed in after if seed in before]
    if not pairs:
        return None
    estimate = over_seeds([b.results[new]["value"] - a.results[old]["value"] for a, b in pairs])
    if any(a.results[old]["protocol"] != b.results[new]["protocol"] for a, b in pairs):
        return Change(estimate.mean, None, None, estimate.n, "", DIFFERENT_PROTOCOLS)
    if all((digest := a.checkpoint(old[1])) is not None and digest == b.checkpoint(new[1]) for a, b in pairs):
        return Change(estimate.mean, None, None, estimate.n, "", SAME)
    if len(pairs) == 1:
        return _over_problems(*pairs[0], old, new, estimate.mean)
    over = "seeds" if estimate.low is not None else ""
    return Change(estimate.mean, estimate.low, estimate.high, estimate.n, over, estimate.verdict)


def _over_problems(before: Cell, after: Cell, old: Place, new: Place, difference: float) -> Change:
    """One pair of cells, compared on the same problems with the test and the interval of a run's own report."""
    first, second = before.scores(old), after.scores(new)
    if first is None or second is None:
        return Change(
            difference, None, None, 1, "", "one seed, whose scores are no longer in the store: cannot be told"
        )
    try:
        found = compare(new[0], old[1], new[1], first, second)
    except ValueError:
        return Change(difference, None, None, 1, "", "not the same problems: cannot be told")
    d = found.difference
    if d is None:
        return Change(difference, None, None, 1, "", DIFFERENT_PROTOCOLS)
    return Change(d.difference, d.low, d.high, 1, "problems", found.verdict, d.p_value, d.improved, d.worsened, d.test)
