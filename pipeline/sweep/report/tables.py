"""A sweep's report as tables for other programs: CSV, LaTeX, and plain text for a terminal."""

from __future__ import annotations

import csv
import io

from pipeline.sweep.report.changes import DIFFERENT_PROTOCOLS, SAME, Change, Value
from pipeline.sweep.report.collect import Row, SweepReport
from stages.report.tables import tex

MARKS = {"higher": r"^{\uparrow}", "lower": r"^{\downarrow}", "not distinguishable": r"^{\approx}"}


def as_csv(report: SweepReport) -> str:
    """One line a group, benchmark, checkpoint and seed, with the run's own interval; the difference to the baseline is the group's."""
    out = io.StringIO()
    axes = [axis for axis in report.record["axes"] if axis != "seed"]
    numbers = ("metric", "value", "low", "high", "n", "k", "truncated", "no_answer", "protocol")
    compared = ("to_baseline", "to_baseline_low", "to_baseline_high", "to_baseline_over", "to_baseline_verdict")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*axes, "seed", "benchmark", "checkpoint", *numbers, "run", *compared])
    rows = _rows(report)
    for group in report.groups:
        for cell in group.cells:
            for (benchmark, checkpoint), result in cell.results.items():
                d = rows[benchmark, checkpoint, group.name].difference
                change = (d.mean, d.low, d.high, d.over, d.verdict) if d is not None else ("",) * len(compared)
                labels = [group.labels[axis] for axis in axes]
                writer.writerow(
                    [*labels, cell.seed, benchmark, checkpoint, *(result[name] for name in numbers), cell.run, *change]
                )
    return out.getvalue()


def as_latex(report: SweepReport) -> str:
    """One booktabs table: groups down, benchmark and checkpoint across; per cent, with half the interval over seeds, or, where there is
    one seed, the interval over problems; a mark for what the difference to the baseline is worth."""
    columns = [(table.benchmark, table.checkpoint) for table in report.tables]
    rows = _rows(report)
    lines = [
        "% mean over seeds +- half of the 95 % interval over seeds; [low, high]: 95 % interval of one run over problems"
    ]
    if report.baseline is not None:
        lines.append(
            f"% to {report.baseline}: up higher, down lower, approx not distinguishable; no mark: cannot be told"
        )
    lines += [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule"]
    lines.append(" & ".join(["", *(tex(f"{benchmark} {checkpoint}") for benchmark, checkpoint in columns)]) + r" \\")
    lines.append(r"\midrule")
    for group in report.groups:
        found = [rows.get((*column, group.name)) for column in columns]
        lines.append(
            " & ".join([tex(group.name), *("--" if row is None else _latex_cell(row) for row in found)]) + r" \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def summary(report: SweepReport) -> str:
    """The tables as plain text, for a terminal."""
    lines = []
    for table in report.tables:
        seeds = max(len(row.values) for row in table.rows)
        lines.append(
            f"{table.benchmark}, {table.checkpoint}: {table.metric}, n {table.n}, seeds {seeds}, 95 % interval"
        )
        width = max(len(row.group) for row in table.rows)
        for row in table.rows:
            shown = f"{100 * row.mean.mean:.1f} % {interval_of(row.mean)} over {row.mean.over}"
            compared = f"   {points(row.difference)} {row.verdict}" if row.difference is not None else ""
            lines.append(f"  {row.group:<{width}}  {shown:<38}{compared}".rstrip())
        lines.append("")
    return "\n".join(lines)


def interval_of(value: Value) -> str:
    """`[18.8, 37.2]` in per cent: of a mean of shares, cut at 0 and 100, which a t interval of few seeds does not know of."""
    return f"[{100 * max(0.0, value.low):.1f}, {100 * min(1.0, value.high):.1f}]"


def points(change: Change) -> str:
    """`+4.0 [-1.0, +9.0]` in percentage points; without an interval where there is none, empty where there is nothing to compare."""
    if change.verdict in (SAME, DIFFERENT_PROTOCOLS):
        return ""
    bounds = (
        "" if change.low is None or change.high is None else f" [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    )
    return f"{100 * change.mean:+.1f}{bounds}"


def _rows(report: SweepReport) -> dict[tuple[str, str, str], Row]:
    return {(table.benchmark, table.checkpoint, row.group): row for table in report.tables for row in table.rows}


def _latex_cell(row: Row) -> str:
    value = row.mean
    spread = rf" \pm {100 * (value.high - value.mean):.1f}" if value.over == "seeds" else rf"\ {interval_of(value)}"
    return f"${100 * value.mean:.1f}{spread}{MARKS.get(row.verdict, '')}$"
