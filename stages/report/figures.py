"""The figures, as SVG that takes its text colour from the page, so that one drawing serves a light page, a dark one and print."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from stages.report.collect import Report, Stage

INK = "#010203"  # replaced by the page's own text colour
COLOURS = ("#7d8590", "#2f81f7", "#d9730d")  # legible on white and on near-black
MARKERS = ("o", "s", "D")
LINES = ("-", "--", ":", "-.")
mpl.rcParams.update(
    {
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
)


def figures(report: Report) -> dict[str, str]:
    """Caption -> SVG, in the order they are shown. A curve that was not recorded has no figure."""
    out = {"Accuracy with 95 % intervals": _results(report)}
    sft, grpo = report.stage("sft"), report.stage("grpo")
    if sft is not None and len(sft.curve) > 1:
        out["SFT"] = _curves(
            sft,
            [
                ("loss per token", {"uniform_loss": "uniform", "weighted_loss": "weighted"}),
                ("nats / share", {"kl": "KL of the weights from uniform", "ess": "effective share of tokens"}),
            ],
        )
    if grpo is not None and len(grpo.curve) > 1:
        out["GRPO"] = _curves(
            grpo,
            [
                ("reward", {"reward": "reward", "rewards/correct/mean": "correct", "frac_reward_zero_std": "groups without variance"}),
                ("tokens", {"completions/mean_length": "mean completion length"}),
            ],
        )
    return out


def _results(report: Report) -> str:
    def draw(axes: Any) -> None:
        for index, checkpoint in enumerate(report.checkpoints):
            for row, benchmark in enumerate(report.benchmarks):
                result = report.result(checkpoint, benchmark)
                if result is None:
                    continue
                y = -row + 0.22 * ((len(report.checkpoints) - 1) / 2 - index)
                value, low, high = (100 * v for v in (result.value, result.low, result.high))
                axes.errorbar(
                    value,
                    y,
                    xerr=[[value - low], [high - value]],
                    fmt=MARKERS[index],
                    color=COLOURS[index],
                    capsize=3,
                    markersize=6,
                    label=checkpoint if row == 0 else None,
                )
        axes.set_yticks([-row for row in range(len(report.benchmarks))], report.benchmarks)
        axes.set_ylim(-len(report.benchmarks) + 0.45, 0.55)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy, %")
        axes.grid(axis="x", alpha=0.25, color=INK)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return _svg([draw], width=7.2, height=1.2 + 0.75 * len(report.benchmarks))


def _curves(stage: Stage, panels: list[tuple[str, dict[str, str]]]) -> str:
    """Side-by-side panels of curves over optimizer steps; a panel whose series were not recorded is left out."""
    curve = stage.curve

    def panel(label: str, series: dict[str, str]) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            for index, (name, title) in enumerate(series.items()):
                points = [(row["step"], row[name]) for row in curve if name in row]
                if points:
                    axes.plot(*zip(*points, strict=True), LINES[index], color=COLOURS[1:][index % 2], lw=1.6, label=title)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel(label)
            axes.grid(alpha=0.25, color=INK)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, fontsize=9)

        return draw

    recorded = [(label, series) for label, series in panels if any(name in row for row in curve for name in series)]
    return _svg([panel(label, series) for label, series in recorded], width=7.2, height=3.1)


def _svg(drawings: list[Callable[[Any], None]], width: float, height: float) -> str:
    figure, axes = plt.subplots(1, len(drawings), figsize=(width, height), layout="constrained", squeeze=False)
    for draw, ax in zip(drawings, axes[0], strict=True):
        draw(ax)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue().replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg[svg.index("<svg") :]
