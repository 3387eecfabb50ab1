"""VCORE's directions that training has anyway, `previous` and `momentum`: what they are, and that they cost nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.footprint.live import LiveBytes
from stages.sft.reweighting import direction as directions
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.vcore import Vcore
from stages.sft.settings import SftSettings
from tests.stages.sft.test_trainer import train
from tests.tiny import open_stage, write_spec


@dataclasses.dataclass
class Seen:
    """Of each step: the direction and the gradient before clipping, flat; and which steps drew a probe."""

    directions: list[Tensor]
    gradients: list[Tensor]
    probes: list[int]
    trainer: Any


@pytest.fixture
def trained(sft_inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Trains four steps with a direction, and tells what was seen."""
    seen = Seen([], [], [], None)
    prepare, finish, probe = Vcore.prepare, Vcore.finish, ModelEvaluator.probe_gradient

    def watched_prepare(self: Vcore, *args: Any) -> Any:
        prepared = prepare(self, *args)
        seen.directions.append(torch.cat([part.flatten().clone() for part in self._direction or []]))
        return prepared

    def watched_finish(self: Vcore, model: Any) -> Any:
        outcome = finish(self, model)
        seen.gradients.append(torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters]))
        return outcome

    def watched_probe(self: ModelEvaluator, fraction: float, step: int, **options: Any) -> Any:
        if fraction == 0.125:  # the checks of the utilities draw others
            seen.probes.append(step)
        return probe(self, fraction, step, **options)

    monkeypatch.setattr(Vcore, "prepare", watched_prepare)
    monkeypatch.setattr(Vcore, "finish", watched_finish)
    monkeypatch.setattr(ModelEvaluator, "probe_gradient", watched_probe)

    def run(method: dict[str, Any], **settings: Any) -> Seen:
        sizes = {"batch_size": 8, "micro_batch_size": 2, "max_steps": 4, "max_length": 128}
        settings = {"method": {"name": "vcore", "diagnostics_steps": 1000, **method}, **sizes, **settings}
        seen.trainer = train(open_stage(SftSettings, write_spec(tmp_path, "sft", settings, sft_inputs)))
        assert len(seen.directions) == len(seen.gradients) == 4
        assert seen.probes == [0], "only the first step, before which there is nothing, draws a probe"
        return seen

    return run


def test_the_direction_of_the_step_before_is_its_gradient(trained: Callable[..., Seen]) -> None:
    seen = trained({"direction": "previous"})
    for gradient, direction in zip(seen.gradients, seen.directions[1:], strict=False):
        assert torch.allclose(direction, gradient * min(1.0, 1.0 / gradient.norm().item()), rtol=1e-5)
    method = seen.trainer.method
    again = Vcore(method.settings)
    again.restore(method.state())
    again.restore_tensors(method.tensors())
    again.probe.next(4, seen.trainer.evaluator)
    assert seen.probes == [0], "a resumed run has it, too"


def test_momentum_is_the_average_of_the_gradients_before(trained: Callable[..., Seen]) -> None:
    """As Adam keeps it, without its bias towards zero. Neither clipping nor alpha changes the gradients here."""
    seen = trained({"direction": "momentum", "probe_clip": None, "variance_control": "none"}, max_grad_norm=1e9)
    average = torch.zeros_like(seen.gradients[0])
    for step in range(1, 4):
        average = 0.9 * average + 0.1 * seen.gradients[step - 1]
        assert torch.allclose(seen.directions[step], average / (1 - 0.9**step), rtol=1e-4, atol=1e-7)
    assert seen.trainer.method.tensors() == [], "the optimizer keeps it, also in checkpoints"


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


AWKWARD = [0.0, -0.0, 1e-45, -3e-39, 1e-30, 3e38, float("inf"), float("nan"), 1.0, -1.0]


@pytest.mark.parametrize("amount", [1e-6, -1.0, 1e6])
def test_parameters_that_were_moved_are_what_they_were_bit_for_bit(
    amount: float,
) -> None:
    """Numbers near zero, whose step is all that is left of them, as well; in slices that do not come out even."""
    draw = torch.Generator().manual_seed(0)
    some = [torch.randn(70, 50, generator=draw), torch.tensor(AWKWARD), torch.zeros(3), torch.randn(30, 20).T]
    some += [torch.randn(40, generator=draw).bfloat16()]
    along = [torch.randn(part.shape, generator=draw) ** 5 for part in some]
    parameters, before = [torch.nn.Parameter(part) for part in some], [part.clone() for part in some]
    with directions.moved(parameters, along, amount, 1000):
        for parameter, old, part in zip(parameters, before, along, strict=True):
            there = old.double() + amount * part
            near = torch.allclose(parameter.double(), there, rtol=1e-2, atol=1e-6, equal_nan=True)
            assert near or old.isinf().any() or old.abs().max() > 1e38
    for parameter, old in zip(parameters, before, strict=True):
        kind = torch.int32 if old.dtype == torch.float32 else torch.int16
        assert torch.equal(parameter.detach().contiguous().view(kind), old.contiguous().view(kind))


def test_a_move_that_fails_halfway_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for want of memory."""
    parameters = [torch.nn.Parameter(torch.arange(10.0)), torch.nn.Parameter(torch.ones(2))]
    move, calls = directions._move_slice, iter(range(10))

    def failing(*arguments: Any) -> None:
        if next(calls) == 2:
            raise torch.OutOfMemoryError
        move(*arguments)

    monkeypatch.setattr(directions, "_move_slice", failing)
    with pytest.raises(torch.OutOfMemoryError), directions.moved(parameters, [torch.ones(10), torch.ones(2)], 0.1, 4):
        raise AssertionError("it was not moved")
    assert torch.equal(parameters[0].detach(), torch.arange(10.0))


@pytest.mark.parametrize(("size", "least", "most"), [(1.0, 120_000, 150_000), (1e-6, 480_000, 481_000)])
def test_a_move_keeps_a_byte_for_each_parameter_and_never_more_than_a_copy(size: float, least: int, most: int) -> None:
    """The second case is of steps beside which nothing is left of the parameters."""
    parameters = [torch.nn.Parameter(size * torch.randn(300, 400))]
    with LiveBytes() as live:
        live.begin(parameters)
        before = live.now
        with directions.moved(parameters, [torch.randn(300, 400)], 1e-3):
            kept = live.now - before - 4 * 120_000  # without the direction, which was made within
    assert least <= kept <= most


def test_a_direction_that_changes_while_parameters_are_moved_is_an_error() -> None:
    along = [torch.ones(3)]
    with pytest.raises(RuntimeError, match="the direction changed"), directions.moved([torch.zeros(3)], along, 0.1):
        along[0].mul_(2)
