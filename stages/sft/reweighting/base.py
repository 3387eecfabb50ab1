"""What a token weighting method sees and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

Batch = dict[str, Any]
"""One collated micro-batch: input_ids, attention_mask and labels, each [rows, positions]."""

Direction = list[torch.Tensor]
"""A direction in the space of the trained parameters: one tensor for each of them, in the order of `model.parameters()`."""


@dataclasses.dataclass(frozen=True)
class Window:
    """The micro-batches of one optimizer step that this process trains on, before any of them has been through the model.

    With several processes the counts are those of all of them together.
    """

    batches: Sequence[Batch]
    step: int
    """Optimizer steps done before this one."""
    tokens: int
    """Supervised tokens in all micro-batches."""
    trajectories: int
    """Rows with at least one supervised token."""


class Evaluator(Protocol):
    """Evaluations of the model that a method can ask for. None of them draws from the global random state or leaves a trace."""

    def losses(self, batch: Batch, dropout_seed: int | None = None) -> torch.Tensor:
        """Loss of each next token, [rows, positions - 1], float32, without gradient; 0 where unsupervised.

        Without dropout, unless a seed for its masks is given.
        """
        ...

    def mean_losses_of_all_rows(self) -> dict[str, float]:
        """Digest of a row (`rows.row_digests`) -> mean loss of its supervised tokens, for the whole training set."""
        ...

    def probe_gradient(self, fraction: float, step: int, part: tuple[int, int] = (0, 1)) -> Direction:
        """Gradient of the uniform loss on a fresh batch of `fraction` of the batch size, drawn by (seed, step).

        With `part` = (i, n) on the i-th of n equal parts of that batch only.
        """
        ...

    def utilities(self, batch: Batch, direction: Direction) -> torch.Tensor:
        """<direction, grad l_t> of each next token by forward-mode differentiation, [rows, positions - 1], float32."""
        ...

    def perturbed(self, direction: Direction, amount: float) -> AbstractContextManager[None]:
        """Within: every trained parameter moved by `amount * direction`. After it, also on an exception: restored bit for bit."""
        ...

    def preconditioned(self, direction: Direction) -> Direction:
        """The direction divided by the root of the optimizer's second moments, as Adam's step is; itself before the first step."""
        ...

    def parameter_norm(self) -> float:
        """Euclidean norm of all trained parameters."""
        ...

    def has_dropout(self) -> bool:
        """Whether the training forward drops activations, so that its losses cannot be compared with `losses`."""
        ...

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        """The sums of these numbers over all processes."""
        ...

    def of_all_ranks(self, values: list[float]) -> list[float]:
        """These lists of all processes, one after the other."""
        ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a method concludes once it has weighted all micro-batches of a window."""

    scale: float = 1.0
    """Factor on the accumulated gradient, before clipping."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    """Lines for the person who watches the run."""


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

    def finish(self, model: Evaluator) -> Outcome:
        """The factor for the window's gradient, and numbers worth plotting."""
        return Outcome()

    def preview(self, window: Window, model: Evaluator) -> torch.Tensor | None:
        """What `weigh` would return for the one micro-batch of `window`, which is shown and not trained on. Changes no state."""
        [batch] = window.batches
        [prepared] = self.prepare(window, model)
        return self.weigh(model.losses(batch), batch["labels"][:, 1:] != -100, prepared)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""

    def tensors(self) -> Direction:
        """The part of the state that is as large as the model."""
        return []

    def restore_tensors(self, tensors: Direction) -> None:
        """Take back what `tensors` returned."""
