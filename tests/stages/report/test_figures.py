"""Which curves of a stage are drawn: what was recorded, the parts of a reward by any name, and nothing else."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from stages.report import figures
from stages.report.render import figures as drawing
from stages.report.render.curves import CURVES

CURVE = {
    **{
        "reward": 0.5,
        "rewards/correct/mean": 0.4,
        "rewards/format/mean": 0.9,
        "rewards/brevity/mean": -0.2,
        "rewards/brevity/std": 0.1,
    },
    **{"kl": 0.01, "clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.1},
    **{"time/generate": 3.0, "time/sync": 0.1, "time/grade": 0.2, "time/train": 2.0},
}


def panels(monkeypatch: Any, curve: list[dict[str, Any]]) -> str:
    monkeypatch.setattr(figures, "_results", lambda report: "")
    stage = SimpleNamespace(name="grpo", curve=curve)
    report: Any = SimpleNamespace(stage=lambda name: stage if name == "grpo" else None)
    return "".join(svg for figure in figures.figures(report) for svg in figure.panels)


def test_rl_shows_the_parts_of_its_reward_divergence_clipping_and_where_time_goes(monkeypatch: Any) -> None:
    drawn = panels(monkeypatch, [{"step": step, **CURVE} for step in (1, 2)])
    for said in (
        "parts of the reward over optimizer steps: format from 0.9 to 0.9; brevity from -0.2 to -0.2",
        "KL, nats per token over optimizer steps: from the start from 0.01",
        "share clipped over optimizer steps: low from 0 to 0; high from 0.1",
        "seconds a step over optimizer steps: generate from 3 to 3; train from 2 to 2; grade from 0.2 to 0.2; "
        "weights to sampler from 0.1",
    ):
        assert said in drawn


def test_what_was_not_recorded_has_no_panel(monkeypatch: Any) -> None:
    drawn = panels(monkeypatch, [{"step": step, "reward": 0.5} for step in (1, 2)])
    assert "reward over optimizer steps" in drawn
    assert "parts of the reward" not in drawn
    assert "KL" not in drawn
    assert "seconds a step" not in drawn


def test_no_legend_ends_beyond_its_drawing(monkeypatch: Any) -> None:
    """In the font that the drawing was laid out with; a page's own may be as wide as the margin that is left."""
    names = {name for panel in CURVES["grpo"].panels for series in panel[1:] for name in series}
    drawn = panels(monkeypatch, [{"step": step, **CURVE, **dict.fromkeys(names, 0.5)} for step in (1, 2)])
    ends = []
    for svg in drawn.split("</svg>")[:-1]:
        viewed = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
        assert viewed is not None
        legend = svg[svg.index("legend_1") :]
        for x, text in re.findall(r'<text style="[^"]*" x="([\d.]+)"[^>]*>([^<]*)<', legend):
            ends.append(float(x) + TextPath((0, 0), text, size=9).get_extents().width - float(viewed[1]))
    assert len(ends) >= 15
    assert max(ends) < -5


@pytest.mark.parametrize(("highest", "end"), [(0.0, 10), (6.2, 10), (9.6, 20), (18.8, 20), (39.0, 100), (95.8, 100)])
def test_the_axis_of_scores_ends_near_the_highest(highest: float, end: int) -> None:
    axes = Figure().add_subplot()
    axes.plot([0.0, highest], [0, 0], label="sft")
    drawing.score_axes(axes, ["plain"], "accuracy, %", 1)
    assert axes.get_xlim() == pytest.approx((-0.02 * end, 1.02 * end))
