"""The figures, as SVG that takes its text colour from the page, so that one drawing serves a light page, a dark one and print.

Series differ by line style or marker as well as by colour, so that they can be told apart without colour.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from stages.report.model import Report, Stage

INK = "#010203"  # replaced by the page's own text colour
COLOURS = ("#7d8590", "#2f81f7", "#d9730d")  # each at least 3:1 on white and on near-black
SERIES = (
    (COLOURS[1], "-"),
    (COLOURS[2], "--"),
    (COLOURS[0], ":"),
    (COLOURS[2], "-."),
    (COLOURS[1], (0, (5, 1, 1, 1, 1, 1))),
)
MARKERS = ("o", "s", "D")
MOST_POINTS = 400
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

# Panels of each stage's figure: y label, then recorded name -> its name in the legend. Loss, KL and entropy are in nats.
PANELS: dict[str, tuple[str, list[tuple[str, dict[str, str]]]]] = {
    "base": ("Base model, pre-training", [("loss, nats per token", {"loss": "loss"})]),
    "sft": (
        "SFT",
        [
            ("loss, nats per token", {"uniform_loss": "uniform", "weighted_loss": "weighted"}),
            ("KL, nats", {"kl": "token weights from uniform"}),
            ("share", {"ess": "ESS", "top_share": "weight of top 1 %"}),
            ("factor", {"alpha": "alpha"}),
            ("rank correlation", {"rounding_agreement": "two sides", "probe_agreement": "two probes"}),
        ],
    ),
    "grpo": (
        "GRPO",
        [
            (
                "reward",
                {"reward": "reward", "rewards/correct/mean": "correct", "resampling/reward": "reward, first draw"},
            ),
            ("parts of the reward", {}),
            ("completion length, tokens", {"completions/mean_length": "mean"}),
            ("entropy, nats per token", {"entropy": "policy"}),
            ("KL, nats per token", {"kl": "from the start"}),
            (
                "share clipped",
                {"clip_ratio/low_mean": "low", "clip_ratio/high_mean": "high", "cispo_clip_ratio": "cispo"},
            ),
            (
                "share",
                {
                    "frac_reward_zero_std": "equal-reward groups",
                    "completions/clipped_ratio": "truncated",
                    "resampling/frac_reward_zero_std": "equal-reward, first draw",
                },
            ),
            (
                "seconds a step",
                {
                    "time/generate": "generate",
                    "time/train": "train",
                    "time/grade": "grade",
                    "time/sync": "weights to sampler",
                },
            ),
        ],
    ),
}
PLAIN_SFT = ("loss, nats per token", {"loss": "loss"})  # methods without weights record one loss


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels that stand side by side, or below one another where the page is narrow."""

    caption: str
    panels: list[str]


def figures(report: Report) -> list[Figure]:
    """The results, then the training curves. A curve that was not recorded has no panel, and a figure without panels is left out."""
    out = [Figure("Scores with 95 % intervals", [_results(report)])]
    for name, (title, panels) in PANELS.items():
        stage = report.stage(name)
        if stage is None:
            continue
        if name == "sft" and not any("weighted_loss" in row for row in stage.curve):
            panels = [PLAIN_SFT, *panels[1:]]
        drawn = [_panel(stage, label, series or _reward_parts(stage.curve)) for label, series in panels]
        if any(drawn):
            out.append(Figure(_caption(title, stage), [svg for svg in drawn if svg]))
    return out


def _reward_parts(curve: list[dict[str, Any]]) -> dict[str, str]:
    """Recorded name -> name of each part of the reward beside `correct`, which the config decides on."""
    found = [re.fullmatch(r"rewards/(.+)/mean", name) for name in dict.fromkeys(name for row in curve for name in row)]
    return {match[0]: match[1] for match in found if match and match[1] != "correct"}


def _caption(title: str, stage: Stage) -> str:
    width = _bin_width(len(stage.curve))
    return f"{title}: training curves" + (f", each point the mean of {width} recorded steps" if width > 1 else "")


def _results(report: Report) -> str:
    checkpoints, benchmarks = report.checkpoints, report.benchmarks

    def draw(axes: Any) -> None:
        for index, checkpoint in enumerate(checkpoints):
            offset = 0.24 * ((len(checkpoints) - 1) / 2 - index)
            found = [
                (row, r)
                for row, benchmark in enumerate(benchmarks)
                if (r := report.result(checkpoint, benchmark)) is not None
            ]
            values = [100 * r.value for _, r in found]
            below = [100 * (r.value - r.low) for _, r in found]
            above = [100 * (r.high - r.value) for _, r in found]
            at = [offset - row for row, _ in found]
            marker, colour = MARKERS[index], COLOURS[index]
            axes.errorbar(
                values, at, xerr=[below, above], fmt=marker, color=colour, capsize=3, markersize=6, label=checkpoint
            )
        axes.set_yticks([-row for row in range(len(benchmarks))], benchmarks)
        axes.set_ylim(-len(benchmarks) + 0.45, 0.55)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("score, %")
        axes.grid(axis="x", alpha=0.25, color=INK)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    alt = "Scores in percent with 95 % intervals: " + "; ".join(
        f"{r.benchmark} {r.checkpoint} {100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        for r in report.results
    )
    return svg(draw, 6.6, 1.1 + 0.75 * len(benchmarks), "results", alt)


def _panel(stage: Stage, label: str, series: dict[str, str]) -> str:
    """One panel of curves over optimizer steps; empty where none of the series was recorded at two steps or more."""
    curves = {title: points for name, title in series.items() if len(points := _points(stage.curve, name)) > 1}
    if not curves:
        return ""

    def draw(axes: Any) -> None:
        for (title, points), (colour, line) in zip(curves.items(), itertools.cycle(SERIES), strict=False):
            axes.plot(*zip(*points, strict=True), line, color=colour, lw=1.6, label=title)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, color=INK)
        axes.ticklabel_format(useOffset=False)
        values = [value for points in curves.values() for _, value in points]
        if min(values) >= 0:  # from 0, so that what hardly changes looks like it
            axes.set_ylim(0, 1.02 if label == "share" else 1.08 * max(values) or 1.0)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2, fontsize=9, borderaxespad=0.2, handlelength=2.2
        )

    ends = "; ".join(f"{title} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for title, points in curves.items())
    name = re.sub(r"\W+", "-", f"{stage.name}-{'-'.join(series)}")
    return svg(draw, 3.35, 2.5, name, f"{stage.name}, {label} over optimizer steps: {ends}")


def _points(curve: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of every finite value, averaged in bins where there are more than a drawing can show."""
    found = [
        (row["step"], row[name]) for row in curve if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]
    width = _bin_width(len(found))
    bins = [found[start : start + width] for start in range(0, len(found), width)]
    return [(sum(step for step, _ in b) / len(b), sum(value for _, value in b) / len(b)) for b in bins]


def _bin_width(points: int) -> int:
    return max(1, math.ceil(points / MOST_POINTS))


def svg(draw: Callable[[Any], None], width: float, height: float, name: str, alt: str) -> str:
    """The drawing as an `<svg>` element, `width` x `height` inches, whose ids begin with `name`: a page holds several."""
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
