"""A history in words: the rows of a series, for the terminal and for the page alike."""

import dataclasses
import itertools
from collections.abc import Iterator

from pipeline.history.documents import History, Point, Series
from stages.report.render.text import NONE, interval, percent, points

MOST_FIELDS = 4
"""Fields of a protocol change that are written out."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that follow one another and have one artifact, so one score.

    Attributes:
        first, last: the runs' first and last point.
        count: how many runs they are.
        score, bounds: value and 95 % interval.
        change: points against the reference with their 95 % interval; `reference` for the reference itself.
        problems: how many problems are better and worse than under the reference.
        note: changes of protocol, and what keeps the run from being compared.
        clear: whether the interval of the change leaves out 0.
    """

    first: Point
    last: Point
    count: int
    score: str
    bounds: str
    change: str
    problems: str
    note: str
    clear: bool

    @property
    def runs(self) -> str:
        """`20260101-020000-demo`, or with how many runs it stands for."""
        return self.first.run if self.count == 1 else f"{self.first.run} and {self.count - 1} more, until {self.until}"

    @property
    def until(self) -> str:
        """The day of the last run."""
        return self.last.started[:10]


def rows(series: Series) -> Iterator[Row]:
    """The series' rows, oldest first."""
    for _, group in itertools.groupby(
        series.points, key=lambda p: (p.key, p.seed, p.status == "done", p.blessed, p.alerts)
    ):
        of_row = list(group)
        yield _row(of_row[0], of_row[-1], len(of_row))


def _row(first: Point, last: Point, count: int) -> Row:
    change = first.change
    notes = ["blessed"] if first.blessed else []
    if first.alerts:
        notes.append(f"alert: moved from the {' and the '.join(first.alerts)}")
    if first.protocol_change is not None:
        notes.append(f"protocol changed: {_fields(first.protocol_change)}")
    if first.why_no_change:
        notes.append(f"not compared: {first.why_no_change}")
    if first.status != "done":
        notes.append(f"run {first.status}")
    return Row(
        first,
        last,
        count,
        percent(first.value),
        interval(first.low, first.high),
        points(change.difference, change.low, change.high) if change else NONE if first.why_no_change else "reference",
        f"{change.improved} better, {change.worsened} worse" if change else NONE,
        "; ".join(notes),
        change is not None and change.clear,
    )


def _fields(changed: list[str]) -> str:
    """The fields in which a protocol differs; those beyond the first few are counted."""
    if not changed:
        return "in what is not recorded"
    more = f" and {len(changed) - MOST_FIELDS} more" if len(changed) > MOST_FIELDS else ""
    return ", ".join(changed[:MOST_FIELDS]) + more


def explanation(history: History) -> str:
    """How the column of changes is to be read."""
    text = (
        "Change: percentage points against the reference, paired by problem, with its 95 % interval. The reference is "
        "the blessed run (vcore bless) where it has the same seed and protocol, else the first run that has."
    )
    compared = sum(point.change is not None for series in history.series for point in series.points)
    return (
        f"{text} Of {compared} comparisons about {0.05 * compared:.1f} would leave out 0 by chance."
        if compared
        else text
    )
