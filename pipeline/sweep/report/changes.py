"""What is claimed of a group: its score, and what changed between two sets of cells; of one seed, over problems."""

import dataclasses
from collections.abc import Mapping

from evaluation.comparison import compare
from evaluation.seeds import SeedEstimate, over_seeds, widened
from pipeline.sweep.documents import GroupScore, ScoreChange
from pipeline.sweep.report.cells import MeasuredCell, Place

SAME = "the same checkpoint"
DIFFERENT_PROTOCOLS = "different protocols"
Cells = Mapping[str, MeasuredCell]
"""Seed -> cell."""


def group_score(cells: Cells, place: Place) -> GroupScore:
    """The score of a group's cells at one place; with the run's own interval where seeds show no spread."""
    results = [cell.results[place] for cell in cells.values()]
    e = over_seeds([result.value for result in results])
    if e.low is not None and e.high is not None:
        return GroupScore(mean=e.mean, low=e.low, high=e.high, n=e.n, over="seeds")
    return GroupScore(mean=e.mean, low=results[0].low, high=results[0].high, n=e.n, over="problems")


def change(before: Cells, old: Place, after: Cells, new: Place) -> ScoreChange | None:
    """From `old` of the cells before to `new` of those after, seed by seed; None where they have no seed in common."""
    pairs = [(before[seed], after[seed]) for seed in after if seed in before]
    if not pairs:
        return None
    e = over_seeds([b.results[new].value - a.results[old].value for a, b in pairs])
    if any(a.results[old].protocol != b.results[new].protocol for a, b in pairs):
        return ScoreChange(mean=e.mean, n=e.n, verdict=DIFFERENT_PROTOCOLS)
    if all((digest := a.checkpoint(old[1])) is not None and digest == b.checkpoint(new[1]) for a, b in pairs):
        return ScoreChange(mean=e.mean, n=e.n, verdict=SAME)
    if len(pairs) == 1:
        return _over_problems(*pairs[0], old, new, e.mean)
    over = "seeds" if e.low is not None else ""
    return ScoreChange(mean=e.mean, low=e.low, high=e.high, n=e.n, over=over, verdict=e.verdict)


def together(changes: list[ScoreChange | None]) -> list[ScoreChange | None]:
    """The changes with intervals that hold all at once with 95 %; None where there is no interval over seeds.

    All None where fewer than two are tested: then there is nothing to hold together.
    """
    tested = [c for c in changes if c is not None and c.over == "seeds" and c.tested]
    return [_widened(c, len(tested)) if c in tested and len(tested) > 1 else None for c in changes]


def _widened(change: ScoreChange | None, among: int) -> ScoreChange:
    assert change is not None
    assert change.high is not None
    half = widened(change.high - change.mean, change.n, among)
    low, high = change.mean - half, change.mean + half
    return change.model_copy(
        update={"low": low, "high": high, "verdict": SeedEstimate(change.mean, low, high, change.n).verdict}
    )


def _over_problems(before: MeasuredCell, after: MeasuredCell, old: Place, new: Place, difference: float) -> ScoreChange:
    """One pair of cells, compared on the same problems with the test and the interval of a run's own report."""
    first, second = before.scores(old), after.scores(new)
    if first is None or second is None:
        gone = "one seed, whose scores are no longer in the store: cannot be told"
        return ScoreChange(mean=difference, n=1, verdict=gone)
    try:
        comparison = compare(new[0], old[1], new[1], first, second)
    except ValueError:
        return ScoreChange(mean=difference, n=1, verdict="not the same problems: cannot be told")
    d = comparison.difference
    if d is None:
        return ScoreChange(mean=difference, n=1, verdict=DIFFERENT_PROTOCOLS)
    numbers = {**dataclasses.asdict(d), "mean": d.difference, "n": 1}
    return ScoreChange.model_validate({**numbers, "over": "problems", "verdict": comparison.verdict})
