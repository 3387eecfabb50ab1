"""Weighting a micro-batch looks at no value, for which an accelerator would have to stop; a step looks a few times.

Tensors of torch's device `meta` have no values: to ask for one, or for a shape that depends on one, is an error there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stages.sft.method_settings import IwSftSettings, NoiseSettings, VcoreSettings
from stages.sft.reweighting.base import Method, Window
from stages.sft.reweighting.baselines import Dft, IwSft, Noise
from stages.sft.reweighting.diagnostics import Concentration
from stages.sft.reweighting.sums import Sums
from stages.sft.reweighting.vcore import Vcore
from tests.stages.sft.reweighting.test_arithmetic import OneProcess

ROWS, WIDTH = 3, 7
VCORE: dict[str, dict[str, Any]] = {
    "default": {},
    "central": {"utility": "central_difference"},
    "over tokens": {"variance_control": "tokens", "normalisation": "trajectories"},
    "loss ratio": {"variance_control": "loss_ratio"},
    "loss ratio of each": {"variance_control": "loss_ratio_per_trajectory", "temperature": 0.1},
    "capped": {"max_relative_weight": 2.0},
    "exact": {"utility": "jvp"},
}


def vcore(name: str) -> Vcore:
    method = Vcore(VcoreSettings.model_validate({"name": "vcore", **VCORE[name]}))
    method._known, method._window = True, Window([], 0, 100, 10)
    method.measurement.step = 0.1  # type: ignore[union-attr]
    return method


def micro_batch(device: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Losses, mask and what was prepared."""
    torch.manual_seed(0)
    losses, other, mask = torch.rand(ROWS, WIDTH), torch.rand(ROWS, WIDTH), torch.rand(ROWS, WIDTH) < 0.8
    prepared = {"minus": other, "change": losses - other, "middle": losses + other, "utility": other}
    prepared["reference"] = torch.rand(ROWS)
    return losses.to(device), mask.to(device), {name: value.to(device) for name, value in prepared.items()}


METHODS: dict[str, Any] = {f"vcore, {name}": lambda name=name: vcore(name) for name in VCORE}
METHODS |= {
    "dft": Dft,
    "iw_sft": lambda: IwSft(IwSftSettings()),
    "noise": lambda: Noise(NoiseSettings(), seed=0),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_micro_batch_is_weighted_without_a_look_at_a_value(name: str) -> None:
    method: Method = METHODS[name]()
    losses, mask, prepared = micro_batch("meta")
    with pytest.raises(RuntimeError):
        bool(mask.any())  # the test can fail
    factors = method.weigh(losses, mask, prepared)
    assert factors is not None
    assert (factors.device.type, factors.shape) == ("meta", (ROWS, WIDTH))
    Concentration().add(factors, mask)
    Sums(2).add(losses.double().sum(), mask.sum())


@pytest.mark.parametrize("name", VCORE)
def test_a_step_looks_as_often_whatever_its_micro_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    real = {attribute: getattr(torch.Tensor, attribute) for attribute in ("item", "tolist", "cpu", "__float__")}
    for attribute, function in real.items():

        def look(self: Any, *args: Any, attribute: str = attribute, function: Any = function) -> Any:
            looks.append(attribute)
            return function(self, *args)

        monkeypatch.setattr(torch.Tensor, attribute, look)
    counts = []
    for micro_batches in (1, 6):
        method, concentration, losses_sums = vcore(name), Concentration(), Sums(1)
        looks.clear()
        for _ in range(micro_batches):
            losses, mask, prepared = micro_batch("cpu")
            factors = method.weigh(losses, mask, prepared)
            concentration.add(factors, mask)
            losses_sums.add(losses.sum())
        before = list(looks)
        outcome = method.finish(OneProcess())  # type: ignore[arg-type]
        assert outcome.scale > 0
        assert concentration.metrics(OneProcess())["kl"] >= 0  # type: ignore[arg-type]
        assert losses_sums.over_ranks(OneProcess())[0] > 0  # type: ignore[arg-type]
        assert before == []
        counts.append(len(looks))
    assert counts[0] == counts[1] <= 5
