"""A sweep's drawings: scores of every group, and training curves of the groups over one another."""

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pipeline.sweep.documents import SweepReport
from pipeline.sweep.report.cells import Group
from stages.report.render import figures as drawing
from stages.report.render.curves import CURVES
from stages.report.render.figures import COLOURS, Curve, Figure

LINES = ("-", "--", ":", "-.")
"""So that groups can be told apart without colour; a group has one of either."""
OF_MEANS = ", mean over seeds"
MOST_POINTS = 80
"""Of one curve: a page holds one for each cell and panel."""


def scores(benchmark: str, report: SweepReport) -> str:
    """Groups down, one mark a checkpoint: every seed as a small point, mean and interval as a bar beside them."""
    tables = [table for table in report.tables if table.benchmark == benchmark]
    measured = {row.group for table in tables for row in table.rows}
    groups = [group for group in report.groups if group in measured]

    def draw(axes: Any) -> None:
        for index, table in enumerate(tables):
            colour, marker = drawing.checkpoint_style(index)
            for row in table.rows:
                y = groups.index(row.group) + (index - (len(tables) - 1) / 2) * 0.22
                seeds = [100 * value for value in row.values.values()]
                axes.plot(seeds, [y] * len(seeds), ".", color=colour, markersize=4, alpha=0.6)
                bounds = [100 * max(0.0, row.mean.low), 100 * min(1.0, row.mean.high)]
                axes.plot(bounds, [y, y], "-" if row.mean.over == "seeds" else ":", color=colour, linewidth=1.5)
                label = table.checkpoint if row is table.rows[0] else None
                axes.plot(100 * row.mean.mean, y, marker, color=colour, markersize=6, label=label)
        drawing.score_axes(axes, groups, f"{tables[0].metric} on {benchmark}, %", len(tables))

    alt = f"{benchmark}: every seed, mean and interval of each group"
    return drawing.svg(draw, 7.2, 1.1 + 0.48 * len(groups), f"sweep-{benchmark}", alt)


def curves(groups: list[Group]) -> list[Figure]:
    """Training curves of the groups over one another, a figure a stage. What no run recorded is left out."""
    out = []
    note = ": bold is the mean over seeds, thin is each seed" if any(len(group.cells) > 1 for group in groups) else ""
    styles = _styles([group.name for group in groups])
    for stage, drawings in CURVES.items():
        panels = []
        for label, names in drawings.compared.items():
            runs = {group.name: each for group in groups if (each := list(_runs(group, stage, names)))}
            if runs:
                means = {name: mean_curve(each) for name, each in runs.items()}
                thin = {name: each for name, each in runs.items() if len(each) > 1}
                name = f"sweep-{stage}-{label}"
                panels.append(drawing.curve_panel(stage, label, means, styles, name=name, thin=thin, note=OF_MEANS))
        if panels:
            out.append(Figure(f"{drawings.title}{note}", panels))
    return out


def _runs(group: Group, stage: str, names: tuple[str, ...]) -> Iterator[Curve]:
    """The curve of each cell, under the first of the names that it recorded."""
    for cell in group.cells:
        rows = cell.curve(stage)
        name = next((name for name in names if any(name in row for row in rows)), None)
        curve = drawing.points(rows, name, MOST_POINTS) if name is not None else []
        if len(curve) > 1:
            yield curve


def _styles(groups: list[str]) -> dict[str, tuple[str, str]]:
    """Group -> colour and line style; those that share a colour have different lines."""
    lines = [LINES[(i + i // len(COLOURS)) % len(LINES)] for i in range(len(groups))]
    return {name: (COLOURS[i % len(COLOURS)], lines[i]) for i, name in enumerate(groups)}


def mean_curve(runs: list[Curve]) -> Curve:
    """At each step the mean over the runs, as long as all of them are there: a mean over the rest would jump."""
    values = [dict(run) for run in runs]
    common = [step for step in sorted(values[0]) if all(step in run for run in values)]
    return [(step, fmean(run[step] for run in values)) for step in common]


def legend(groups: list[str]) -> str:
    """A drawing of its own, once for all curves: inside a panel many groups would hide them."""
    columns = max(1, min(len(groups), 100 // (8 + max(map(len, groups)))))

    def draw(axes: Any) -> None:
        for name, (colour, line) in _styles(groups).items():
            axes.plot([], [], line, color=colour, lw=1.8, label=name)
        axes.set_axis_off()
        axes.legend(loc="center left", ncols=columns, handlelength=2.6)

    height = 0.12 + 0.24 * math.ceil(len(groups) / columns)
    return drawing.svg(draw, 7.2, height, "sweep-legend", f"groups: {', '.join(groups)}")
