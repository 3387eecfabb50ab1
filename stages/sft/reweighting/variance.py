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
from stages.sft.reweighting.sums import Sums


class VarianceControl:
    """Collects one optimizer step and answers its alpha."""

    def __init__(self, name: VarianceControlName, largest: float | None) -> None:
        self.name = name
        self.largest = largest
        self.restart()

    def restart(self) -> None:
        """Forget the step before."""
        self._rows: list[Tensor] = []
        """Of each micro-batch: its trajectories' uniform and weighted utilities, not finite for one without tokens."""
        self._tokens = Sums(5)
        """Count of tokens; sum and sum of squares of their uniform utilities, then of their weighted ones."""
        self._losses = Sums(2)

    def add(self, losses: Tensor, mask: Tensor, utility: Tensor, q: Tensor, factors: Tensor) -> None:
        """Add one micro-batch; all [rows, positions - 1]."""
        usable = utility.double().where(mask & utility.isfinite(), torch.zeros_like(utility, dtype=torch.float64))
        counts = mask.sum(-1, keepdim=True)
        if self.name == "trajectories":
            both = torch.stack([usable.sum(-1) / counts.squeeze(-1), (usable * q).sum(-1)])
            self._rows.append(both.where(mask.any(-1), math.nan))
        elif self.name == "tokens":
            parts = (usable, usable * q * counts)
            self._tokens.add(counts.sum(), *(sums for part in parts for sums in (part.sum(), part.square().sum())))
        elif self.name == "loss_ratio":
            self._losses.add(losses.double().sum(), (losses.double() * factors.double()).sum())

    def alpha(self, model: Evaluator) -> float:
        """The factor on the step's gradient; 1 where it is undefined (one trajectory, no spread) or off."""
        value = 1.0
        if self.name == "trajectories":
            rows = torch.cat(self._rows, 1).tolist() if self._rows else [[], []]
            value = variance_ratio(*(model.of_all_ranks([v for v in row if not math.isnan(v)]) for row in rows))
        elif self.name == "tokens":
            count, *sums = self._tokens.over_ranks(model)
            uniform, weighted = _variance_of_sums(count, *sums[:2]), _variance_of_sums(count, *sums[2:])
            value = math.sqrt(uniform / weighted) if uniform and weighted else 1.0
        elif self.name == "loss_ratio":
            uniform_loss, weighted_loss = self._losses.over_ranks(model)
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
