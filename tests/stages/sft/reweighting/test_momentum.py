"""VCORE's `direction: momentum`: what Adam averages of the gradients, at the cost of no probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.harness.context import StageError
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.vcore import Vcore
from stages.sft.settings import SftSettings
from tests.stages.sft.test_trainer import train
from tests.tiny import open_stage, write_spec

UNCLIPPED = {"max_grad_norm": 1e9}


def test_it_is_the_average_of_the_gradients_before(
    sft_inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bias and clipping, from the second step on; only the first step draws a probe."""
    directions, gradients, probes = [], [], []
    prepare, finish, probe = Vcore.prepare, Vcore.finish, ModelEvaluator.probe_gradient

    def watched_prepare(self: Vcore, *args: Any) -> Any:
        prepared = prepare(self, *args)
        directions.append(torch.cat([part.flatten().clone() for part in self._direction or []]))
        return prepared

    def watched_finish(self: Vcore, model: Any) -> Any:
        gradients.append(torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters]))
        return finish(self, model)

    def watched_probe(self: ModelEvaluator, fraction: float, step: int, **options: Any) -> Any:
        probes.append((fraction, step))
        return probe(self, fraction, step, **options)

    monkeypatch.setattr(Vcore, "prepare", watched_prepare)
    monkeypatch.setattr(Vcore, "finish", watched_finish)
    monkeypatch.setattr(ModelEvaluator, "probe_gradient", watched_probe)
    method = {"name": "vcore", "direction": "momentum", "probe_clip": None, "variance_control": "none"}
    settings = {"method": method, "batch_size": 8, "micro_batch_size": 2, "max_steps": 4, "max_length": 128}
    done = train(open_stage(SftSettings, write_spec(tmp_path, "sft", settings | UNCLIPPED, sft_inputs)))
    assert [step for fraction, step in probes if fraction == 0.125] == [0]
    assert len(directions) == len(gradients) == 4
    average = torch.zeros_like(gradients[0])
    for step in range(1, 4):
        average = 0.9 * average + 0.1 * gradients[step - 1]
        assert torch.allclose(directions[step], average / (1 - 0.9**step), rtol=1e-4, atol=1e-7)
    assert done.method.tensors() == [], "the optimizer keeps it"


def test_what_an_optimizer_keeps_is_asked_of_it() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=0.1)
    sizes = {"batch_size": 1, "micro_batch_size": 1, "bfloat16": False, "seed": 0}
    evaluator = ModelEvaluator(model, [], lambda rows: {}, lambda: optimizer, **sizes)  # type: ignore[arg-type]
    assert evaluator.momentum() is None, "before the first step"
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    kept = optimizer.state[model.weight]["exp_avg"].clone()
    momentum = evaluator.momentum()
    assert momentum is not None
    momentum[0].mul_(0)
    assert torch.equal(optimizer.state[model.weight]["exp_avg"], kept), "a copy"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    with pytest.raises(StageError, match="SGD keeps no average of the gradients"):
        evaluator.momentum()
