"""Evaluations of a model whose parameters FSDP2 has shared out: each process moves, probes and keeps its own shards.

Parameters and directions are DTensors here, so that sums and norms over them are over all processes. Every process has
to run the same number of forward passes, because each gathers the weights from all of them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from stages.harness.context import StageError
from stages.sft.reweighting.base import Batch, Direction
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.row_values import times_row_weights
from stages.sft.trl_internals import token_log_probs
from stages.training import distributed


class ShardedEvaluator(ModelEvaluator):
    """A `ModelEvaluator` of a model that `fully_shard` has taken apart. Make it before the model's first forward pass.

    It leaves no trace either, but while it probes `.grad` holds the probe's gradient: it must be empty before.
    """

    def __post_init__(self) -> None:
        self._reshard()  # of a gathered module, `parameters` would be the gathered ones
        super().__post_init__()

    def _reshard(self) -> None:
        """Drop gathered weights. FSDP2 keeps the root's, and those of modules that it does not reshard after their
        forward pass, until a backward pass: the next forward pass would not see that shards have moved."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    @contextmanager
    def perturbed(self, direction: Direction, amount: float) -> Iterator[None]:
        self._reshard()
        with super().perturbed(direction, amount):
            try:
                yield
            finally:
                self._reshard()

    def _batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As many as in the process that has most rows; those that fill up carry no label, and so no loss."""
        yield from super()._batches(rows)
        missing = self._count(max(distributed.gather(len(rows)))) - self._count(len(rows))
        for _ in range(missing):
            batch = self.collate([self.dataset[0]])
            yield {**batch, "labels": torch.full_like(batch["labels"], -100)}

    def _count(self, rows: int) -> int:
        """Of micro-batches that `_batches` makes of so many rows."""
        steps, rest = divmod(rows, self.batch_size)
        return steps * math.ceil(self.batch_size / self.micro_batch_size) + math.ceil(rest / self.micro_batch_size)

    def _summed_gradient(self, batches: Sequence[Batch], tokens: float) -> Direction:
        if any(parameter.grad is not None for parameter in self.parameters):
            raise RuntimeError("a probe in the middle of an optimizer step would be added to its gradient")
        for batch in batches:
            # FSDP reduces gradients to their mean over the processes, and only in a backward pass of its own.
            log_probs = times_row_weights(token_log_probs(self.model, self.model_inputs(batch)), batch)
            (-log_probs.sum() / tokens * distributed.world_size()).backward()
        gradient = []
        for parameter in self.parameters:
            gradient.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            parameter.grad = None
        return gradient

    def utilities(self, batch: Batch, direction: Direction) -> Tensor:
        raise StageError(
            "forward-mode differentiation (sft.method.utility: jvp) needs whole weights, which FSDP splits",
            "Set sft.method.utility to central_difference.",
        )

    def shards(self, direction: Direction) -> list[Tensor]:
        """This process' part of a direction."""
        return [part.to_local() if isinstance(part, DTensor) else part for part in direction]

    def from_shards(self, shards: Sequence[Tensor]) -> Direction:
        """The direction of which every process has these parts of its own."""
        return [
            DTensor.from_local(shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
            if isinstance(like, DTensor)
            else shard
            for shard, like in zip(shards, self.parameters if shards else [], strict=True)
        ]
