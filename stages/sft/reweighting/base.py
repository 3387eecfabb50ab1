"""What a token weighting method sees and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

Batch = dict[str, Any]
"""One collated micro-batch: input_ids, attention_mask and labels, each [rows, positions]."""


@dataclasses.dataclass(frozen=True)
class Window:
    """The micro-batches of one optimizer step, before any of them has been through the model."""

    batches: Sequence[Batch]
    step: int
    """Optimizer steps done before this one."""
    tokens: int
    """Supervised tokens in all micro-batches."""
    trajectories: int
    """Rows with at least one supervised token."""


class Evaluator(Protocol):
    """Evaluations of the model that a method can ask for. None of them draws from the global random state or leaves a trace."""

    def losses(self, batch: Batch) -> torch.Tensor:
        """Loss of each next token, [rows, positions - 1], float32, without gradient and dropout; 0 where unsupervised."""
        ...

    def probe_gradient(self, fraction: float, step: int) -> list[torch.Tensor]:
        """Gradient of the uniform loss on a fresh batch of `fraction` of the batch size, drawn by (seed, step); one tensor a parameter."""
        ...

    def perturbed(self, direction: Sequence[torch.Tensor], amount: float) -> AbstractContextManager[None]:
        """Within: every trained parameter moved by `amount * direction`. After it, also on an exception: restored bit for bit."""
        ...

    def parameter_norm(self) -> float:
        """Euclidean norm of all trained parameters."""
        ...

    def has_dropout(self) -> bool:
        """Whether the training forward drops activations, so that its losses cannot be compared with `losses`."""
        ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a method concludes once it has weighted all micro-batches of a window."""

    scale: float = 1.0
    """Factor on the accumulated gradient, before clipping."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)


class Method:
    """A token weighting method; the defaults weight uniformly.

    For each optimizer step the trainer calls `prepare` once, `weigh` for each micro-batch in order, and `finish` once.
    """

    def prepare(self, window: Window, model: Evaluator) -> list[dict[str, torch.Tensor]]:
        """Evaluate what `weigh` will need; one dictionary of tensors for each micro-batch of the window."""
        return [{} for _ in window.batches]

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Weights for one micro-batch.

        Args:
            losses: loss of each next token in the training forward, [rows, positions - 1], detached, 0 where unsupervised.
            mask: the supervised ones, the same shape.
            prepared: this micro-batch's entry from `prepare`.

        Returns:
            Factors on the token losses, whose weighted sum is divided by the window's supervised tokens; so all ones is uniform
            weighting. None leaves the losses untouched.
        """
        return None

    def finish(self) -> Outcome:
        """The factor for the window's gradient, and numbers worth plotting."""
        return Outcome()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
