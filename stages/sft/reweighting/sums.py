"""Sums over the micro-batches of an optimizer step that stay on the device until they are asked for."""

import torch
from torch import Tensor

from stages.sft.reweighting.base import Evaluator


class Sums:
    """A number of sums, all 0 at first. To look at a value stops an accelerator: it is done once, in `over_ranks`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._total: Tensor | None = None

    def add(self, *values: Tensor) -> None:
        """Add a value to each sum: `count` tensors of one element, of any type."""
        stacked = torch.stack([value.detach().double() for value in values])
        self._total = stacked if self._total is None else self._total + stacked

    def over_ranks(self, model: Evaluator) -> list[float]:
        """The sums over all processes, each of which has to call this."""
        return model.sum_over_ranks([0.0] * self._count if self._total is None else self._total.tolist())
