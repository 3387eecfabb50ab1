"""The figures of a run's report: its results, and the training curves of its stages."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.documents import Report, ReportedStage
from stages.report.render import figures as drawing
from stages.report.render.curves import CURVES, Panel
from stages.report.render.figures import BLUE, GREY, ORANGE, Curve, Figure

SERIES = ((BLUE, "-"), (ORANGE, "--"), (GREY, ":"), (ORANGE, "-."), (BLUE, (0, (5, 1, 1, 1, 1, 1))))
"""Colours and line styles of the series of one panel."""
MOST_POINTS = 400


def figures(report: Report) -> list[Figure]:
    """The results, then the training curves of each stage that recorded some. What was not recorded has no panel."""
    out = [Figure("Scores with 95 % intervals", [_results(report)])]
    for name, curves in CURVES.items():
        stage = report.stage(name)
        panels = [svg for panel in curves.panels if (svg := _panel(stage, panel))] if stage is not None else []
        if stage is not None and panels:
            width = drawing.bin_width(len(stage.curve), MOST_POINTS)
            binned = f", each point the mean of {width} recorded steps" if width > 1 else ""
            out.append(Figure(f"{curves.title}: training curves{binned}", panels))
    return out


def _results(report: Report) -> str:
    checkpoints, benchmarks = report.checkpoints, report.benchmarks

    def draw(axes: Any) -> None:
        for index, checkpoint in enumerate(checkpoints):
            results = [r for r in report.results if r.checkpoint == checkpoint]
            values = [100 * r.value for r in results]
            lines = [benchmarks.index(r.benchmark) + 0.24 * (index - (len(checkpoints) - 1) / 2) for r in results]
            spread = [[100 * (r.value - r.low) for r in results], [100 * (r.high - r.value) for r in results]]
            colour, marker = drawing.checkpoint_style(index)
            look = {"fmt": marker, "color": colour, "capsize": 3, "markersize": 6}
            axes.errorbar(values, lines, xerr=spread, label=checkpoint, **look)
        drawing.score_axes(axes, benchmarks, "score, %", len(checkpoints))

    alt = "; ".join(
        f"{r.benchmark} {r.checkpoint} {100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        for r in report.results
    )
    height = 1.1 + 0.75 * len(benchmarks)
    return drawing.svg(draw, 6.6, height, "results", f"Scores in percent with 95 % intervals: {alt}")


def _panel(stage: ReportedStage, panel: Panel) -> str:
    """One panel of curves over optimizer steps; empty where none of the series was recorded at two steps or more."""
    label, *alternatives = panel
    recorded = (_curves(stage, series) for series in alternatives or [_reward_parts(stage.curve)])
    curves = next((curves for curves in recorded if curves), None)
    if curves is None:
        return ""
    styles = dict(zip(curves, itertools.cycle(SERIES), strict=False))
    return drawing.curve_panel(stage.name, label, curves, styles, name=f"{stage.name}-{label}", legend=True)


def _curves(stage: ReportedStage, series: Mapping[str, str]) -> dict[str, Curve]:
    """Name in the legend -> curve, of the series that were recorded at two steps or more."""
    curves = {title: drawing.points(stage.curve, name, MOST_POINTS) for name, title in series.items()}
    return {title: curve for title, curve in curves.items() if len(curve) > 1}


def _reward_parts(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Recorded name -> name of each part of the reward beside `correct`, which the config decides on."""
    names = dict.fromkeys(name for row in rows for name in row)
    matches = [re.fullmatch(r"rewards/(.+)/mean", name) for name in names]
    return {match[0]: match[1] for match in matches if match and match[1] != "correct"}
