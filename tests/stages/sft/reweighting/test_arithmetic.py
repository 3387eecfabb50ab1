"""VCORE's arithmetic on tensors of known losses, without a model: normalisation, servo, alpha, the paper by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from stages.harness.context import StageError
from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Window
from stages.sft.reweighting.utility import LARGEST_SERVO_FACTOR, Differences, LossChange
from stages.sft.reweighting.variance import variance_ratio
from stages.sft.reweighting.vcore import Vcore


class OneProcess:
    """The part of an evaluator that needs no model."""

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        return values

    def of_all_ranks(self, values: list[float]) -> list[float]:
        return values


def made(settings: dict[str, Any], mask: torch.Tensor) -> tuple[Vcore, Differences]:
    """A method in the middle of a step of length 0.1, with only one window of `mask` in it."""
    method = Vcore(VcoreSettings.model_validate({"name": "vcore", "max_neutral_share": 1.0, **settings}))
    assert isinstance(method.measurement, Differences)
    method.measurement.step, method.measurement.radius = 0.1, 0.1
    method._known = True
    method._window = Window([], 0, int(mask.sum()), int(mask.any(-1).sum()))
    return method, method.measurement


def weigh(
    settings: dict[str, Any], change: torch.Tensor, losses: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    method, measurement = made(settings, mask)
    factors = method.weigh(losses, mask, {"change": change})
    radius = measurement.radius or 0.0
    outcome = method.finish(OneProcess())  # type: ignore[arg-type]
    return factors, (outcome, (measurement.radius or 0.0) / radius)


def test_normalisation_decides_whether_long_trajectories_count_more() -> None:
    torch.manual_seed(0)
    change, losses = torch.randn(2, 6), torch.rand(2, 6)
    mask = torch.tensor([[True] * 6, [True, True] + [False] * 4])
    by_tokens, _ = weigh({"normalisation": "tokens"}, change, losses, mask)
    by_rows, _ = weigh({"normalisation": "trajectories"}, change, losses, mask)
    assert by_tokens.sum(-1).tolist() == pytest.approx([6.0, 2.0])
    assert by_rows.sum(-1).tolist() == pytest.approx([4.0, 4.0])  # divided by 8 tokens: half each


@pytest.mark.parametrize(("rms", "factor"), [(0.06, 0.5), (0.03, 1.0), (1e-6, 4.0), (10.0, 0.25)])
def test_the_servo_steers_to_its_target_by_at_most_four(rms: float, factor: float) -> None:
    change, mask = torch.full((2, 5), rms), torch.ones(2, 5, dtype=torch.bool)
    _, (outcome, moved) = weigh({"target_rms": 0.03}, change, torch.ones(2, 5), mask)
    assert moved == pytest.approx(factor, rel=1e-5)
    assert outcome.metrics["loss_change_rms"] == pytest.approx(rms)


@pytest.mark.parametrize("rounding", [0.0, 0.02])
@pytest.mark.parametrize("curvature", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("start", [1e-6, 1e-3, 0.3, 1e3])
def test_the_servo_finds_its_step_from_anywhere_above_rounding_and_below_curvature(
    start: float, curvature: float, rounding: float
) -> None:
    """Losses with slope 1, curvature, and rounding errors: odd^2 = r^2 + e^2 / 2, even^2 = (c r^2)^2 + 3 e^2 / 2."""
    measurement = Differences(VcoreSettings(utility="central_difference", target_rms=0.3))
    radius = start
    for _ in range(40):
        odd = radius**2 + rounding**2 / 2
        even = (curvature * radius**2) ** 2 + 1.5 * rounding**2
        measurement.radius = radius
        radius *= measurement._servo_factor(LossChange(odd, 1, odd, even), largest=LARGEST_SERVO_FACTOR)
    ideal = min(0.3, 1 / curvature if curvature else math.inf)
    assert ideal / 2 < radius < 2 * ideal


def test_a_change_that_is_not_finite_is_neutral_and_shrinks_the_step() -> None:
    mask = torch.ones(2, 4, dtype=torch.bool)
    factors, (outcome, moved) = weigh({}, torch.full((2, 4), math.nan), torch.ones(2, 4), mask)
    assert factors.tolist() == [[1.0] * 4] * 2
    assert (outcome.metrics["neutral_tokens"], outcome.scale, moved) == (8.0, 1.0, 0.25)


def test_only_supervised_tokens_count_as_neutral() -> None:
    change = torch.tensor([[1.0, math.nan, 3.0, math.inf], [math.nan] * 4])
    for supervised, neutral in ((4, 6.0), (3, 4.0)):
        mask = (torch.arange(4) < supervised).expand(2, 4)
        _, (outcome, _) = weigh({}, change, torch.ones(2, 4), mask)
        assert outcome.metrics["neutral_tokens"] == neutral


def test_loss_ratio_never_lets_the_weighted_loss_exceed_the_uniform_one() -> None:
    change = torch.tensor([[3.0, 0.0, 0.0, 0.0]])
    losses = torch.tensor([[4.0, 1.0, 1.0, 1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    factors, (outcome, _) = weigh({"kl": 0.5, "variance_control": "loss_ratio"}, change, losses, mask)
    assert outcome.scale * (losses * factors).sum().item() == pytest.approx(7.0, rel=1e-6)
    _, (outcome, _) = weigh({"kl": 0.5, "variance_control": "loss_ratio"}, -change, losses, mask)
    assert outcome.scale == 1.0


def test_too_many_utilities_that_are_not_finite_stop_the_run() -> None:
    mask = torch.ones(2, 4, dtype=torch.bool)
    method, _ = made({"max_neutral_share": 0.2}, mask)
    change = torch.tensor([[math.nan, math.inf, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    method.weigh(torch.ones(2, 4), mask, {"change": change})
    with pytest.raises(StageError, match="2 of 8 tokens have a utility that is not finite"):
        method.finish(OneProcess())  # type: ignore[arg-type]


def test_variance_ratio_is_the_papers_over_trajectories() -> None:
    uniform, weighted = [1.0, 2.0, 4.0], [2.0, 6.0, 1.0]
    expected = math.sqrt(torch.tensor(uniform).double().var().item() / torch.tensor(weighted).double().var().item())
    assert variance_ratio(uniform, weighted) == pytest.approx(expected)
    assert variance_ratio(weighted, uniform) == pytest.approx(1 / expected)
    assert variance_ratio([1.0], [2.0]) == 1.0
    assert variance_ratio([1.0, 1.0], [3.0, 3.0]) == 1.0


def test_only_max_alpha_keeps_the_control_from_amplifying() -> None:
    change = torch.tensor(
        [[10.0, 10.0, 10.0], [0.0, 11.0, -11.0]]
    )  # the weights bring the second trajectory's utility near the first's
    mask, losses = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3)
    tilted = {"kl": 0.3, "variance_control": "trajectories"}
    _, (free, _) = weigh({**tilted, "max_alpha": None}, change, losses, mask)
    _, (held, _) = weigh({**tilted, "max_alpha": 1.0}, change, losses, mask)
    assert held.scale == min(1.0, free.scale)
    assert free.scale > 1.0


def test_the_papers_arithmetic_by_hand() -> None:
    """Two trajectories, epsilon 0.5, temperature 2: q = softmax of the loss changes / (epsilon * temperature)."""
    change = torch.tensor([[0.2, -0.1, 0.4], [0.3, 0.1, 0.0]])
    losses = torch.tensor([[1.0, 2.0, 3.0], [4.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    paper = {"preset": "paper", "epsilon": 0.5, "temperature": 2.0}
    method, measurement = made(paper, mask)
    measurement.step = 0.5
    factors = method.weigh(losses, mask, {"change": change})
    q = [torch.softmax(change[0].double() / 1.0, -1), torch.softmax(change[1, :2].double() / 1.0, -1)]
    assert factors[0].tolist() == pytest.approx((q[0] * 2.5).tolist(), rel=1e-6), (
        "both count as 5 tokens / 2 trajectories"
    )
    assert factors[1].tolist() == pytest.approx([*(q[1] * 2.5).tolist(), 0.0], rel=1e-6)
    utility = [change[0].double() / 0.5, change[1, :2].double() / 0.5]
    uniform, weighted = (
        [s.mean().item() for s in utility],
        [(s * p).sum().item() for s, p in zip(utility, q, strict=True)],
    )
    expected = abs(uniform[0] - uniform[1]) / abs(
        weighted[0] - weighted[1]
    )  # the ratio of two standard deviations of two values
    assert method.finish(OneProcess()).scale == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


def test_the_released_codes_arithmetic_by_hand() -> None:
    """A trajectory's weights times its length, then times min(1, uniform loss / weighted loss) of that trajectory."""
    far = torch.tensor([[0.8, 2.1, 2.6], [3.7, 1.4, 0.0]])
    losses = torch.tensor([[1.0, 2.0, 3.0], [4.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    method, measurement = made({"preset": "official", "epsilon": 0.5, "temperature": 2.0}, mask)
    measurement.step = 0.5
    factors = method.weigh(losses, mask, {"minus": far})
    for row, count in ((0, 3), (1, 2)):
        near = losses[row, :count].double()
        weights = torch.softmax((near - far[row, :count].double()) / 1.0, -1) * count
        ratio = min(1.0, (near.sum() / (weights * near).sum()).item())
        assert factors[row, :count].tolist() == pytest.approx((weights * ratio).tolist(), rel=1e-5)
    assert method.finish(OneProcess()).scale == 1.0  # type: ignore[arg-type]
