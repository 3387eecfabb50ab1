"""Drawings as SVG that takes its text colour from the page: one drawing serves a light page, a dark one and print.

Series differ by line style or marker as well as by colour, so that they can be told apart without colour.
"""

import dataclasses
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import fmean
from types import MappingProxyType
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.transforms import blended_transform_factory

INK = "#010203"  # replaced by the page's own text colour
GREY, BLUE, ORANGE = "#7d8590", "#2f81f7", "#d9730d"
COLOURS = (BLUE, ORANGE, "#2da44e", "#bf4bb0", "#8a63d2", "#e5534b", "#1793a0", GREY)
"""Of groups and series, each at least 3:1 on white and on near-black."""
CHECKPOINTS = ((GREY, "o"), (BLUE, "s"), (ORANGE, "D"), ("#2da44e", "^"), ("#bf4bb0", "v"))
"""Colours and markers of the checkpoints of a run, in the order of training."""
STYLE = {
    "svg.hashsalt": "vcore",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "savefig.transparent": True,
    "legend.frameon": False,
}
SCORE_ENDS = (10, 20, 40, 100)
"""Where the axis of scores may end, in per cent."""
WIDE_LEGEND = 27  # characters of two names that fit beside each other
Curve = list[tuple[float, float]]
"""(optimizer step, value)"""
NONE: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels that stand side by side, or below one another where the page is narrow."""

    caption: str
    panels: list[str]


def checkpoint_style(index: int) -> tuple[str, str]:
    """Colour and marker of the checkpoint that comes `index`-th in training."""
    return CHECKPOINTS[index % len(CHECKPOINTS)]


def points(rows: Sequence[Mapping[str, Any]], name: str, most: int) -> Curve:
    """The finite values recorded under a name; where there are more than `most`, means of bins of as many rows each."""
    recorded = [(float(row["step"]), float(row[name])) for row in rows if isinstance(row.get(name), int | float)]
    finite = [(step, value) for step, value in recorded if math.isfinite(value)]
    width = bin_width(len(finite), most)
    bins = [finite[start : start + width] for start in range(0, len(finite), width)]
    return [(fmean(step for step, _ in b), fmean(value for _, value in b)) for b in bins]


def bin_width(count: int, most: int) -> int:
    """How many of `count` rows make one point, so that there are `most` points or fewer."""
    return max(1, math.ceil(count / most))


def score_axes(axes: Any, rows: Sequence[str], label: str, checkpoints: int) -> None:
    """Axes for scores in per cent that have been drawn: one line for each of the names in `rows`, from the top. They
    end at 100, or well before where all scores are low, which could not be told apart otherwise."""
    highest = next(end for end in SCORE_ENDS if end == SCORE_ENDS[-1] or axes.dataLim.x1 <= 0.95 * end)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02 * highest, 1.02 * highest)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.25, color=INK)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=checkpoints)


def curve_panel(
    stage: str,
    label: str,
    curves: Mapping[str, Curve],
    styles: Mapping[str, Any],
    *,
    name: str,
    thin: Mapping[str, Sequence[Curve]] = NONE,
    legend: bool = False,
    note: str = "",
) -> str:
    """Curves of a stage over optimizer steps, as an `<svg>` element.

    Args:
        label: of the y axis, which begins at 0 if nothing is negative: what hardly changes has to look like it.
        curves: title of a curve -> the curve.
        styles: title of a curve -> its colour and line style.
        name: with which the ids of the drawing begin.
        thin: title of a curve -> further ones behind it.
        legend: whether the panel has its own.
        note: said of the curves in the description, which has the first and the last value of each.
    """

    def draw(axes: Any) -> None:
        for title, (colour, line) in styles.items():
            for curve in thin.get(title, ()):
                axes.plot(*zip(*curve, strict=True), "-", color=colour, lw=0.5, alpha=0.45)
            if curves.get(title):
                axes.plot(*zip(*curves[title], strict=True), line, color=colour, lw=1.7, label=title)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, color=INK)
        axes.ticklabel_format(useOffset=False)
        drawn = [*curves.values(), *(curve for behind in thin.values() for curve in behind)]
        values = [value for curve in drawn for _, value in curve]
        if min(values) >= 0:
            axes.set_ylim(0, 1.02 if label == "share" else 1.08 * max(values) or 1.0)
        if legend:
            columns = 2 if sum(sorted(map(len, curves))[-2:]) <= WIDE_LEGEND else 1
            # From the left edge of the drawing: from that of the axes, two columns would end beyond its right one.
            across = blended_transform_factory(axes.figure.transFigure, axes.transAxes)
            place = {"loc": "lower left", "bbox_to_anchor": (0.0, 0.98), "bbox_transform": across}
            axes.legend(ncols=columns, fontsize=9, handlelength=2.2, borderaxespad=0.2, columnspacing=1.2, **place)

    ends = {title: (curve[0][1], curve[-1][1]) for title, curve in curves.items() if curve}
    alt = "; ".join(f"{title} from {first:.3g} to {last:.3g}" for title, (first, last) in ends.items())
    return svg(draw, 3.35, 2.5, re.sub(r"\W+", "-", name), f"{stage}, {label} over optimizer steps{note}: {alt}")


def svg(draw: Callable[[Any], None], width: float, height: float, name: str, alt: str) -> str:
    """The drawing as an `<svg>` element, `width` x `height` inches. Its ids begin with `name`: a page holds several."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        draw(axes)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    drawn = text.getvalue()
    drawn = re.sub(
        r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL
    )
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = drawn.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return re.sub(r"font-family: [^;\"]*", "font-family: inherit", drawn)
