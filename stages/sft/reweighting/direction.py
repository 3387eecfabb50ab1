"""The direction along which VCORE measures utilities: a probe gradient, an average of them, or what training has
anyway, the gradient of the step before or the optimizer's momentum; and moving parameters along it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Direction, Evaluator
from stages.training import distributed


class ProbeDirection:
    """Each step's direction, from the gradient of the uniform loss on a probe batch that the step does not train on, or
    from the gradients of the steps before, which trained on other rows.

    Attributes:
        kept: what later steps need of this one, as large as the model: with `ema` the sum of decay^i * gradient of i
            steps ago, whose bias matters only to norms, and is divided out for them; with `previous` the gradient of
            the last step, of its weighted loss. Else nothing.
        steps: probes in that sum.
        size: Euclidean norm of the last direction.
        metrics: of the last direction: the probe's norm and, with averaging, its cosine to the average before it.
    """

    def __init__(self, settings: VcoreSettings) -> None:
        self.settings = settings
        self.kept: Direction = []
        self.steps = 0
        self.size = 0.0
        self.metrics: dict[str, float] = {}

    def next(self, step: int, model: Evaluator) -> Direction | None:
        """The clipped direction, or None where it is zero or not finite."""
        fresh = self._had_anyway(model)
        if fresh is None:  # also in the first step, before which there is none
            fresh = model.probe_gradient(self.settings.probe_fraction, step)
        size = norm(fresh)
        self.metrics = {"probe_grad_norm": size}
        if size == 0.0 or not math.isfinite(size):
            return None
        direction = self._averaged(fresh, size) if self.settings.direction == "ema" else fresh
        if self.settings.precondition:
            direction = model.preconditioned(direction)
        if direction is not fresh:
            size = norm(direction)
        limit = self.settings.probe_clip
        factor = 1.0 if limit is None else min(1.0, limit / size)
        self.size = size * factor
        # The average is kept, and its multiple made for this step; what was made for it is scaled in place.
        return [part.mul_(factor) for part in direction]

    def _had_anyway(self, model: Evaluator) -> Direction | None:
        if self.settings.direction == "momentum":
            return model.momentum()
        if self.settings.direction == "previous" and self.kept:
            kept, self.kept = self.kept, []
            return kept
        return None

    def end_step(self, model: Evaluator) -> None:
        """Keep what the next step needs of this one, whose gradient is complete."""
        if self.settings.direction == "previous":
            self.kept = model.training_gradient()

    def _averaged(self, fresh: Direction, size: float) -> Direction:
        decay = self.settings.ema_decay
        if self.kept:
            products = (torch.sum(one * other) for one, other in zip(self.kept, fresh, strict=True))
            inner = sum(map(distributed.number, products))
            self.metrics["probe_cosine"] = inner / (norm(self.kept) * size)
            for mean, part in zip(self.kept, fresh, strict=True):
                mean.mul_(decay).add_(part, alpha=1 - decay)
        else:
            self.kept = [part * (1 - decay) for part in fresh]
        self.steps += 1
        unbiased = 1 / (1 - decay**self.steps)
        return [part * unbiased for part in self.kept]


def norm(direction: Direction) -> float:
    """Euclidean norm over all parameters."""
    return distributed.number(torch.nn.utils.get_total_norm(direction))


SLICE = {"cpu": 2**18}
"""Device -> elements that are moved at once, which takes little memory: on a CPU as many as stay in its cache."""
LARGE_SLICE = 2**24
"""The same elsewhere, where each slice is a wait for the device."""
BYTES_KEPT = 12
"""For a parameter that is kept itself: its place and what it was."""


@contextmanager
def moved(parameters: Sequence[Tensor], direction: Direction, amount: float) -> Iterator[None]:
    """Within: `amount` times the direction is added to the parameters. Afterwards they are what they were, bit for bit.

    Going back by subtraction leaves rounding. What it would leave is known beforehand, and kept as a difference of the
    numbers' bits: one byte for each parameter, where a copy takes four. The few for which a byte is too little, near
    zero beside their step, are kept themselves.

    Neither the parameters nor the direction may change within. Raises `RuntimeError` where the direction has, when
    there is no way back.
    """
    taken: list[_Move | _Copy] = []
    versions = [part._version for part in direction]
    try:
        with torch.no_grad():
            for parameter, part in zip(parameters, direction, strict=True):
                _move(_local(parameter), _local(part), amount, taken)
        yield
    finally:
        if [part._version for part in direction] != versions:
            raise RuntimeError("the direction changed while the parameters were moved along it")
        with torch.no_grad():
            for step in reversed(taken):
                step.undo()


def _move(parameter: Tensor, direction: Tensor, amount: float, taken: list[_Move | _Copy]) -> None:
    """Move one parameter. How it comes back is in `taken` before it changes, so that a lack of memory ends in no
    mixture of old and new."""
    direction = direction.to(parameter.dtype)
    if parameter.dtype != torch.float32 or not parameter.is_contiguous():
        taken.append(_Copy(parameter, parameter.clone()))
        parameter.add_(direction, alpha=amount)
        return
    difference = torch.empty_like(parameter, dtype=torch.int8)
    size = SLICE.get(parameter.device.type, LARGE_SLICE)
    flat = parameter.view(-1), direction.reshape(-1), difference.view(-1)
    for place, step, missing in zip(*(tensor.split(size) for tensor in flat), strict=True):
        move = _Move(place, step, missing, amount)
        there = move.prepare()
        taken.append(move)
        place.copy_(there)


def _local(tensor: Tensor) -> Tensor:
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


@dataclasses.dataclass
class _Copy:
    """What a parameter was."""

    parameter: Tensor
    before: Tensor

    def undo(self) -> None:
        self.parameter.copy_(self.before)


@dataclasses.dataclass
class _Move:
    """A step of some parameters in float32, and what going back would get wrong.

    Sums of products are taken in two operations, each rounded by itself, so that they are the same both times.
    """

    parameter: Tensor
    direction: Tensor
    difference: Tensor
    amount: float
    places: Tensor | None = None
    before: Tensor | None = None
    """What is at the places; without places, what all of them were."""

    def prepare(self) -> Tensor:
        """Where the parameters have to go. Notes how they come back."""
        step = self.direction * self.amount
        there = self.parameter + step
        missing = _bits(self.parameter) - _bits(there - step)
        self.difference.copy_(missing)  # of what does not fit, some of the bits
        wide = missing != self.difference
        number = int(wide.sum())
        if number * BYTES_KEPT > self.parameter.nbytes:
            self.before = self.parameter.clone()
        elif number:
            self.places = torch.nonzero_static(wide, size=number).squeeze(-1)
            self.before = self.parameter[self.places]
        return there

    def undo(self) -> None:
        if self.before is not None and self.places is None:
            self.parameter.copy_(self.before)
            return
        self.parameter.sub_(self.direction * self.amount)
        _bits(self.parameter).add_(self.difference)
        if self.before is not None:
            self.parameter[self.places] = self.before


def _bits(numbers: Tensor) -> Tensor:
    return numbers.view(torch.int32)
