"""TRL's curves of means, made of a whole optimizer step.

TRL takes each mean over one micro-batch, all processes together, and logs the mean of these. Completions are dealt to
micro-batches by length, so that one of short completions has few tokens: counted like any other, they would weigh more
than those of long ones, and a curve would change with the cut.
"""

import torch
from torch import Tensor

from stages.training import distributed

OVER_TOKENS = ("entropy", "kl")
BY_LEVEL = ("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "cispo_clip_ratio")
"""Over tokens, or over completions where the ratio is that of a completion."""
OVER_COMPLETIONS = ("vespo/phi_seq_mean",)


class StepMeans:
    """Counts what each micro-batch of an optimizer step has, and makes one mean of theirs."""

    def __init__(self, *, by_sequence: bool) -> None:
        """`by_sequence`: whether importance ratios are of whole completions."""
        over_completions = (*OVER_COMPLETIONS, *(BY_LEVEL if by_sequence else ()))
        self._columns = {name: int(name in over_completions) for name in (*OVER_TOKENS, *BY_LEVEL, *OVER_COMPLETIONS)}
        self._counts: list[Tensor] = []

    def add(self, mask: Tensor) -> None:
        """Add a micro-batch; `mask` are its completions' tokens that carry a loss, [completions, positions]."""
        self._counts.append(torch.stack([mask.sum(), mask.new_tensor(len(mask))]).double())

    def finish(self, curves: dict[str, list[float]]) -> None:
        """Replace what the micro-batches since the last call have logged by the step's means, in place.

        Every process has to call this, with as many micro-batches.
        """
        counts, self._counts = self._counts, []
        if len(counts) < 2:
            return
        counted = torch.stack(counts)
        distributed.sum_tensors([counted])
        weights = counted.T.tolist()
        for name, column in self._columns.items():
            values, of_each = curves.get(name, []), weights[column]
            if len(values) >= len(of_each) and sum(of_each):
                own = values[-len(of_each) :]
                values[-len(of_each) :] = [sum(v * w for v, w in zip(own, of_each, strict=True)) / sum(of_each)]
