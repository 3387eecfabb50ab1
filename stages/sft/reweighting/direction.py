"""The direction along which VCORE measures utilities: a probe gradient, an average of them, or what training has
anyway, the gradient of the step before or the optimizer's momentum; and moving parameters along it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

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


CACHE_SLICE = 2**18
"""Elements that are moved at once on a CPU: as many as stay in its cache."""
LARGE_SLICE = 2**24
"""The same elsewhere, where each slice is a wait for the device."""
BYTES_KEPT = 12
"""For a parameter that is kept itself: its place and what it was."""


@contextmanager
def moved(
    parameters: Sequence[Tensor], direction: Direction, amount: float, slice_size: int | None = None
) -> Iterator[None]:
    """Within: `amount` times the direction is added to the parameters. Afterwards they are what they were, bit for bit.

    Going back by subtraction leaves rounding. What it would leave is known beforehand, and kept as a difference of the
    numbers' bits: one byte for each parameter, where a copy takes four. The few for which a byte is too little, near
    zero beside their step, are kept themselves.

    Args:
        direction: a tensor of each parameter's shape.
        slice_size: elements that are moved at once; the rest of what moving takes is of their size.

    Raises:
        RuntimeError: the direction has changed within, so that there is no way back. Nor may the parameters change.
    """
    versions = [part._version for part in direction]
    with ExitStack() as back:  # goes all of the way, whatever fails on it
        with torch.no_grad():
            for parameter, part in zip(parameters, direction, strict=True):
                _move(_local(parameter), _local(part), amount, slice_size, back)
        yield
        if [part._version for part in direction] != versions:
            raise RuntimeError("the direction changed while the parameters were moved along it")


def _local(tensor: Tensor) -> Tensor:
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _move(parameter: Tensor, direction: Tensor, amount: float, slice_size: int | None, back: ExitStack) -> None:
    direction = direction.to(parameter.dtype)
    if parameter.dtype != torch.float32 or not parameter.is_contiguous():
        back.callback(parameter.copy_, parameter.clone())
        parameter.add_(direction, alpha=amount)
        return
    difference = torch.empty_like(parameter, dtype=torch.int8)
    size = slice_size or (CACHE_SLICE if parameter.device.type == "cpu" else LARGE_SLICE)
    flat = parameter.view(-1), direction.reshape(-1), difference.view(-1)
    for place, step, missing in zip(*(tensor.split(size) for tensor in flat), strict=True):
        _move_slice(place, step, missing, amount, back)


def _move_slice(parameters: Tensor, direction: Tensor, difference: Tensor, amount: float, back: ExitStack) -> None:
    """Move some parameters, [n] in float32, when `back` knows how they come back. The product and the sum are two
    operations, each rounded by itself, so that they are the same both times; `difference` is [n] in int8."""
    step = direction * amount
    there = parameters + step
    missing = _bits(parameters) - _bits(there - step)
    difference.copy_(missing)  # of what does not fit, some of the bits
    wide = missing != difference
    number = int(wide.sum())
    if number * BYTES_KEPT > parameters.nbytes:
        back.callback(parameters.copy_, parameters.clone())
    else:
        places = torch.nonzero_static(wide, size=number).squeeze(-1)
        back.callback(_move_back, parameters, direction, difference, amount, places, parameters[places])
    parameters.copy_(there)


def _move_back(
    parameters: Tensor, direction: Tensor, difference: Tensor, amount: float, places: Tensor, kept: Tensor
) -> None:
    parameters.sub_(direction * amount)
    _bits(parameters).add_(difference)
    parameters[places] = kept


def _bits(numbers: Tensor) -> Tensor:
    return numbers.view(torch.int32)
