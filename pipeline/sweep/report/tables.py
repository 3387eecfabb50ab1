"""A sweep's report as tables for other programs: CSV, LaTeX, and plain text for a terminal."""

from collections.abc import Iterator

from pipeline.sweep.documents import GroupScore, ScoreChange, ScoreRow, SweepReport
from pipeline.sweep.report.cells import Group
from pipeline.sweep.report.changes import DIFFERENT_PROTOCOLS, SAME
from pipeline.sweep.settings import REPLICATES
from stages.report.render import text
from stages.report.render.tables import booktabs, csv_text, tex

MARKS = {"higher": r"^{\uparrow}", "lower": r"^{\downarrow}", "not distinguishable": r"^{\approx}"}
NUMBERS = ("metric", "value", "low", "high", "n", "k", "truncated", "no_answer", "protocol")
COMPARED = {"mean": "to_baseline"} | {name: f"to_baseline_{name}" for name in ("low", "high", "over", "verdict")}
"""Field of a difference -> its column in the CSV."""
SPREAD = "mean over seeds +- half of the 95 % interval over seeds; [low, high]: 95 % interval of one run over problems"
LEGEND = "up higher, down lower, approx not distinguishable; no mark: cannot be told"


def as_csv(report: SweepReport, groups: list[Group]) -> str:
    """One line a group, benchmark, checkpoint and seed, with the run's own interval.

    The difference to the baseline is the group's, over all its seeds.
    """
    axes = [axis for axis in report.sweep.axes if axis != REPLICATES]
    rows = _rows(report)

    def lines() -> Iterator[list[object]]:
        yield [*axes, REPLICATES, "benchmark", "checkpoint", *NUMBERS, "run", *COMPARED.values()]
        for group in groups:
            for cell in group.cells:
                for place, result in cell.results.items():
                    difference = rows[*place, group.name].difference
                    numbers = [getattr(result, name) for name in NUMBERS]
                    compared = ["" if difference is None else getattr(difference, name) for name in COMPARED]
                    labels = [group.labels[axis] for axis in axes]
                    yield [*labels, cell.seed, *place, *numbers, cell.run, *compared]

    return csv_text(lines())


def as_latex(report: SweepReport) -> str:
    """One booktabs table: groups down, benchmark and checkpoint across, in per cent.

    With half the interval over seeds, or, where there is one seed, the interval over problems; and with a mark for what
    the difference to the baseline is worth.
    """
    rows = _rows(report)
    places = [(table.benchmark, table.checkpoint) for table in report.tables]
    comments = [SPREAD] if report.baseline is None else [SPREAD, f"to {report.baseline}: {LEGEND}"]
    body = [[tex(group), *(_latex_cell(rows.get((*place, group))) for place in places)] for group in report.groups]
    return booktabs(comments, "l" + "r" * len(places), ["", *(tex(" ".join(place)) for place in places)], body)


def _latex_cell(row: ScoreRow | None) -> str:
    if row is None:
        return "--"
    score = row.mean
    spread = rf" \pm {100 * (score.high - score.mean):.1f}" if score.over == "seeds" else rf"\ {interval(score)}"
    return f"${100 * score.mean:.1f}{spread}{MARKS.get(row.verdict, '')}$"


def summary(report: SweepReport) -> str:
    """The tables as plain text, for a terminal."""
    lines = []
    for table in report.tables:
        seeds = max(len(row.values) for row in table.rows)
        place = f"{table.benchmark}, {table.checkpoint}"
        lines.append(f"{place}: {table.metric}, n {table.n}, seeds {seeds}, 95 % interval")
        width = max(len(row.group) for row in table.rows)
        for row in table.rows:
            shown = f"{text.percent(row.mean.mean)} {interval(row.mean)} over {row.mean.over}"
            compared = f"   {points(row.difference)} {row.verdict}" if row.difference is not None else ""
            lines.append(f"  {row.group:<{width}}  {shown:<38}{compared}".rstrip())
        lines.append("")
    return "\n".join(lines)


def interval(score: GroupScore) -> str:
    """`[18.8, 37.2]`, in per cent."""
    return text.interval(score.low, score.high)


def points(change: ScoreChange | None) -> str:
    """`+4.0 [-1.0, +9.0]` in percentage points, without an interval where there is none; empty if nothing compares."""
    if change is None or change.verdict in (SAME, DIFFERENT_PROTOCOLS):
        return ""
    return text.points(change.mean, change.low, change.high)


def _rows(report: SweepReport) -> dict[tuple[str, str, str], ScoreRow]:
    return {(table.benchmark, table.checkpoint, row.group): row for table in report.tables for row in table.rows}
