"""A sweep's drawings: scores of every group, and training curves of the groups over one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pipeline.sweep.report.cells import Group
from pipeline.sweep.report.collect import SweepReport
from stages.report.figures import COLOURS, INK, Figure, svg

MORE_COLOURS = (*COLOURS[1:], "#2da44e", "#bf4bb0", "#8a63d2", "#e5534b", "#1793a0", COLOURS[0])
"""Of groups, each at least 3:1 on white and on near-black."""
LINES = ("-", "--", ":", "-.")
"""So that groups can be told apart without colour; a group has one of either."""
MOST_POINTS = 80
"""Of one curve: a page holds one for each cell and panel."""

# Panels of a stage: y label, then the recorded names of which the first that a run has is drawn.
PANELS: dict[str, tuple[str, list[tuple[str, tuple[str, ...]]]]] = {
    "sft": (
        "SFT",
        [
            ("uniform loss, nats per token", ("uniform_loss", "loss")),
            ("KL of weights, nats", ("kl",)),
            ("effective share of tokens", ("ess",)),
            ("alpha", ("alpha",)),
        ],
    ),
    # Before groups of equal reward gave way to others, where that was recorded: what is left afterwards rises by selection.
    "grpo": (
        "GRPO",
        [("reward", ("resampling/reward", "reward")), ("completion length, tokens", ("completions/mean_length",))],
    ),
}
Curve = list[tuple[float, float]]


def scores(benchmark: str, report: SweepReport) -> str:
    """Groups down, one mark a checkpoint: every seed as a small point, mean and interval as a bar beside them."""
    tables = [table for table in report.tables if table.benchmark == benchmark]
    groups = [
        group.name for group in report.groups if any(row.group == group.name for table in tables for row in table.rows)
    ]
    apart = 0.22

    def draw(axes: Any) -> None:
        for index, table in enumerate(tables):
            colour, marker = COLOURS[index % len(COLOURS)], "osD"[index % 3]
            shift = (index - (len(tables) - 1) / 2) * apart
            for row in table.rows:
                y = groups.index(row.group) + shift
                axes.plot(
                    [100 * v for v in row.values.values()],
                    [y] * len(row.values),
                    ".",
                    color=colour,
                    markersize=4,
                    alpha=0.6,
                )
                low, high = max(0.0, row.mean.low), min(1.0, row.mean.high)
                axes.plot(
                    [100 * low, 100 * high],
                    [y, y],
                    "-" if row.mean.over == "seeds" else ":",
                    color=colour,
                    linewidth=1.5,
                )
                label = table.checkpoint if row is table.rows[0] else None
                axes.plot(100 * row.mean.mean, y, marker, color=colour, markersize=6, label=label)
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.grid(axis="x", alpha=0.25, color=INK)
        axes.set_xlabel(f"{tables[0].metric} on {benchmark}, %")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(tables))

    return svg(
        draw,
        7.2,
        1.1 + 0.48 * len(groups),
        f"sweep-{benchmark}",
        f"{benchmark}: every seed, mean and interval of each group",
    )


def curves(report: SweepReport) -> list[Figure]:
    """Training curves of all groups over one another, a figure a stage. What no run recorded has no panel, or no figure."""
    out = []
    for stage, (title, panels) in PANELS.items():
        drawn = []
        for label, names in panels:
            found = {group.name: runs for group in report.groups if (runs := list(_runs(group, stage, names)))}
            if found:
                drawn.append(_panel(stage, label, found, [group.name for group in report.groups]))
        if drawn:
            several = any(len(group.cells) > 1 for group in report.groups)
            out.append(Figure(f"{title}: bold is the mean over seeds, thin is each seed" if several else title, drawn))
    return out


def _runs(group: Group, stage: str, names: tuple[str, ...]) -> Iterator[Curve]:
    """The curve of each cell, thinned to means of bins of equal numbers of rows."""
    for cell in group.cells:
        rows = cell.curve(stage)
        name = next((name for name in names if any(name in row for row in rows)), None)
        found = (
            [(float(row["step"]), float(row[name])) for row in rows if isinstance(row.get(name), int | float)]
            if name
            else []
        )
        found = [(step, value) for step, value in found if math.isfinite(value)]
        width = max(1, math.ceil(len(found) / MOST_POINTS))
        bins = [found[start : start + width] for start in range(0, len(found), width)]
        if len(bins) > 1:
            yield [(fmean(step for step, _ in b), fmean(value for _, value in b)) for b in bins]


def _style(name: str, groups: list[str]) -> tuple[str, str]:
    index = groups.index(name)
    return MORE_COLOURS[index % len(MORE_COLOURS)], LINES[index % len(LINES)]


def mean_curve(runs: list[Curve]) -> Curve:
    """At each step the mean over the runs that recorded it, as long as all of them are there: a mean over the rest would jump."""
    values = [dict(run) for run in runs]
    return [
        (step, fmean(run[step] for run in values)) for step in sorted(values[0]) if all(step in run for run in values)
    ]


def _panel(stage: str, label: str, found: dict[str, list[Curve]], groups: list[str]) -> str:
    means = {name: mean_curve(runs) for name, runs in found.items()}

    def draw(axes: Any) -> None:
        for name, runs in found.items():
            colour, line = _style(name, groups)
            for run in runs if len(runs) > 1 else []:
                axes.plot(*zip(*run, strict=True), "-", color=colour, lw=0.5, alpha=0.45)
            if means[name]:
                axes.plot(*zip(*means[name], strict=True), line, color=colour, lw=1.8)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, color=INK)
        axes.ticklabel_format(useOffset=False)
        values = [value for runs in found.values() for run in runs for _, value in run]
        if min(values) >= 0:  # from 0, so that what hardly changes looks like it
            axes.set_ylim(0, 1.08 * max(values) or 1.0)

    ends = "; ".join(f"{name} from {mean[0][1]:.3g} to {mean[-1][1]:.3g}" for name, mean in means.items() if mean)
    name = f"sweep-{stage}-{''.join(c if c.isalnum() else '-' for c in label)}"
    return svg(draw, 3.35, 2.5, name, f"{stage}, {label} over optimizer steps, mean over seeds: {ends}")


def legend(report: SweepReport) -> str:
    """A drawing of its own, once for all curves: inside a panel many groups would hide them."""
    groups = [group.name for group in report.groups]
    columns = max(1, min(len(groups), 100 // (8 + max(map(len, groups)))))

    def draw(axes: Any) -> None:
        for name in groups:
            colour, line = _style(name, groups)
            axes.plot([], [], line, color=colour, lw=1.8, label=name)
        axes.set_axis_off()
        axes.legend(loc="center left", ncols=columns, handlelength=2.6)

    return svg(
        draw, 7.2, 0.12 + 0.24 * math.ceil(len(groups) / columns), "sweep-legend", f"groups: {', '.join(groups)}"
    )
