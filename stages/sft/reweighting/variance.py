"""The factor alpha on a reweighted update: the paper's variance control, and what its code does instead.

It is computed from sums and lists over the whole optimizer step, of all micro-batches and processes, and so does not
depend on how the batch is split.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stages.sft.method_settings import VarianceControlName
from stages.sft.reweighting.base import Evaluator


class VarianceControl:
    """Collects one optimizer step and answers its alpha."""

    def __init__(self, name: VarianceControlName, largest: float | None) -> None:
        self.name = name
        self.largest = largest
        self.restart()

    def restart(self) -> None:
        """Forget the step before."""
        self._uniform: list[float] = []
        self._weighted: list[float] = []
        self._tokens = ([0.0] * 3, [0.0] * 3)
        """Count, sum and sum of squares of the uniform and of the weighted utilities of single tokens."""
        self._losses = [0.0, 0.0]

    def add(self, losses: Tensor, mask: Tensor, utility: Tensor, q: Tensor, factors: Tensor) -> None:
        """Add one micro-batch; all [rows, positions - 1]. `q` sums to 1 in a row, `factors` multiply the losses."""
        usable = utility.double().where(mask & utility.isfinite(), torch.zeros_like(utility, dtype=torch.float64))
        counts = mask.sum(-1, keepdim=True)
        rows = mask.any(-1)
        self._uniform += (usable.sum(-1) / counts.squeeze(-1).clamp(min=1))[rows].tolist()
        self._weighted += (usable * q).sum(-1)[rows].tolist()
        for sums, values in zip(self._tokens, (usable[mask], (usable * q * counts)[mask]), strict=True):
            for index, value in enumerate((values.numel(), values.sum().item(), values.square().sum().item())):
                sums[index] += value
        self._losses[0] += losses.double().sum().item()
        self._losses[1] += (losses.double() * factors.double()).sum().item()

    def alpha(self, model: Evaluator) -> float:
        """The factor on the step's gradient; 1 where it is undefined (one trajectory, no spread) or off."""
        value = 1.0
        if self.name == "trajectories":
            value = variance_ratio(model.of_all_ranks(self._uniform), model.of_all_ranks(self._weighted))
        elif self.name == "tokens":
            uniform, weighted = (_variance_of_sums(*model.sum_over_ranks(sums)) for sums in self._tokens)
            value = math.sqrt(uniform / weighted) if uniform and weighted else 1.0
        elif self.name == "loss_ratio":
            uniform_loss, weighted_loss = model.sum_over_ranks(self._losses)
            value = uniform_loss / weighted_loss if weighted_loss > 0 else 1.0
        return value if self.largest is None else min(self.largest, value)

    def row_factors(self, losses: Tensor, factors: Tensor) -> Tensor:
        """`factors` of one micro-batch, times each row's own loss ratio where that is the control."""
        if self.name != "loss_ratio_per_trajectory":
            return factors
        weighted = (losses * factors).sum(-1, keepdim=True)
        ratio = torch.where(weighted > 0, losses.sum(-1, keepdim=True) / weighted.clamp(min=1e-30), 1.0)
        return factors * (ratio if self.largest is None else ratio.clamp(max=self.largest))


def variance_ratio(uniform: Sequence[float], weighted: Sequence[float]) -> float:
    """The paper's alpha = sqrt(Var[uniform] / Var[weighted]) of the trajectories' utilities.

    A trajectory's are the mean and the weighted sum over its tokens. The estimate from few trajectories is biased
    upwards; it is 1 for fewer than two, which have no variance, and where either variance is 0.
    """
    if len(uniform) < 2:
        return 1.0
    spread_uniform, spread_weighted = _variance(uniform), _variance(weighted)
    return math.sqrt(spread_uniform / spread_weighted) if spread_uniform and spread_weighted else 1.0


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _variance_of_sums(count: float, total: float, squares: float) -> float:
    return max(0.0, squares - total**2 / count) / (count - 1) if count > 1 else 0.0
