"""Evaluations of a Trainer's model beside its training forward: losses, a probe gradient, and losses at moved parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from stages.sft.reweighting.base import Batch

MODEL_INPUTS = ("input_ids", "attention_mask", "labels")
PROBE_STREAM = 1
"""Separates the probe's random stream from others that are drawn by (seed, step)."""


class ModelEvaluator:
    """Evaluates a causal language model that has TRL's fused head.

    Nothing here touches the global random state, `.grad`, or the train and eval modes that the model was in: a run that evaluates
    trains exactly as one that does not.

    Args:
        model: the model being trained, as the Trainer calls it (with its autocast).
        dataset: the tokenised training rows, to draw probe batches from.
        collate: the Trainer's data collator.
        place: moves a batch to the model's device.
        batch_size: rows of one optimizer step.
        micro_batch_size: rows of one forward pass.
        seed: of the probe batches.
    """

    def __init__(
        self,
        model: Any,
        dataset: Any,
        collate: Callable[[list[dict[str, Any]]], Batch],
        place: Callable[[Batch], Batch],
        *,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
    ) -> None:
        self.model = model
        self.dataset = dataset
        self.collate = collate
        self.place = place
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.seed = seed
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def losses(self, batch: Batch) -> torch.Tensor:
        with self._without_dropout(training=False), torch.no_grad():
            return -self._forward(batch).log_probs.float()

    def probe_gradient(self, fraction: float, step: int) -> list[torch.Tensor]:
        rows = self.probe_rows(fraction, step)
        batches = [self.collate(rows[start : start + self.micro_batch_size]) for start in range(0, len(rows), self.micro_batch_size)]
        tokens = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        total = [torch.zeros_like(parameter) for parameter in self.parameters]
        # Gradient checkpointing works only in training mode; dropout is off in both.
        with self._without_dropout(training=bool(getattr(self.model, "is_gradient_checkpointing", False))):
            for batch in batches:
                loss = -self._forward(batch).log_probs.sum() / tokens
                parts = torch.autograd.grad(loss, self.parameters, allow_unused=True)
                for accumulated, part in zip(total, parts, strict=True):
                    if part is not None:
                        accumulated.add_(part)
        return total

    def probe_rows(self, fraction: float, step: int) -> list[dict[str, Any]]:
        """The probe batch of an optimizer step: rows drawn without replacement by (seed, step) alone, so a resume draws the same."""
        size = min(len(self.dataset), max(1, round(fraction * self.batch_size)))
        draw = np.random.default_rng([PROBE_STREAM, self.seed, step])
        return [self.dataset[int(index)] for index in draw.choice(len(self.dataset), size, replace=False)]

    @contextmanager
    def perturbed(self, direction: Sequence[torch.Tensor], amount: float) -> Iterator[None]:
        kept = [parameter.detach().clone() for parameter in self.parameters]
        try:
            with torch.no_grad():
                for parameter, part in zip(self.parameters, direction, strict=True):
                    parameter.add_(part.to(parameter.dtype), alpha=amount)
            yield
        finally:  # copied back, not subtracted: rounding would not cancel
            with torch.no_grad():
                for parameter, copy in zip(self.parameters, kept, strict=True):
                    parameter.copy_(copy)

    def parameter_norm(self) -> float:
        return float(torch.nn.utils.get_total_norm([parameter.detach() for parameter in self.parameters]).item())

    def has_dropout(self) -> bool:
        modules = self.model.modules()
        if any(isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules):
            return True
        config = self.model.config.to_dict()
        return any(name.endswith(("dropout", "_pdrop")) and value for name, value in config.items() if isinstance(value, int | float))

    def _forward(self, batch: Batch) -> Any:
        inputs = self.place({name: batch[name] for name in MODEL_INPUTS})
        return self.model(**inputs, use_cache=False, fused_lm_head=True)

    @contextmanager
    def _without_dropout(self, *, training: bool) -> Iterator[None]:
        modes = [(module, module.training) for module in self.model.modules()]
        devices = [self.parameters[0].device] if self.parameters[0].is_cuda else []
        try:
            self.model.train(training)
            for module, _ in modes:
                if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                    module.eval()
            with torch.random.fork_rng(devices):
                yield
        finally:
            for module, mode in modes:
                module.training = mode
