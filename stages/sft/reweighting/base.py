"""What a token weighting method sees and what it answers: all that a method of your own needs to import."""

import dataclasses
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor

Batch = dict[str, Any]
"""One collated micro-batch: input_ids, attention_mask and labels, each [rows, positions]."""

Prepared = dict[str, Tensor]
"""What a method has evaluated for one micro-batch before any of the window is trained on."""

Direction = list[Tensor]
"""A direction in the space of the trained parameters: a tensor for each, in the order of `model.parameters()`."""


SIGNALS = ("entropy", "concentration", "is_top1", "top_entropy", "logit_gap", "mass")
"""What a method may ask of the model's head, for each token: the entropy of the distribution in nats; the sum of its
squared probabilities; whether the token is the most likely one (1 or 0); the entropy of the 20 most likely tokens,
renormalised; its logit minus that of the strongest other token; its probability with those of all less likely tokens.
The last three cost one more product with the head."""


@dataclasses.dataclass(frozen=True)
class Window:
    """The micro-batches of one optimizer step that this process trains on, before any has been through the model.

    With several processes the counts are those of all of them together.
    """

    batches: Sequence[Batch]
    """Those with the longest rows first."""
    step: int
    """Optimizer steps done before this one."""
    tokens: int
    """Supervised tokens in all micro-batches."""
    trajectories: int
    """Rows with at least one supervised token."""


class Evaluator(Protocol):
    """Evaluations of the model for a method. None of them draws from the global random state or leaves a trace."""

    def losses(self, batch: Batch, dropout_seed: int | None = None) -> Tensor:
        """Loss of each next token, [rows, positions - 1], float32, without gradient; 0 where unsupervised. Without
        dropout, unless a seed for its masks is given."""

    def signals(self, batch: Batch) -> Prepared:
        """The signals that the method declares, of each next token, as `Method.weigh` gets them; without dropout."""

    def losses_of_all_rows(self) -> dict[str, Tensor]:
        """Digest of a row (see `row_digests`) -> losses of its supervised tokens, float32 on the CPU, for the whole
        training set."""

    def signals_of_all_rows(self, name: str) -> dict[str, Tensor]:
        """Digest of a row -> one of the method's `start_signals` of its supervised tokens, float32 on the CPU, for the
        whole training set."""

    def mean_losses_of_all_rows(self) -> dict[str, float]:
        """Digest of a row (see `row_digests`) -> mean loss of its supervised tokens, for the whole training set."""

    def probe_gradient(self, fraction: float, step: int, part: tuple[int, int] = (0, 1)) -> Direction:
        """Gradient of the uniform loss on a fresh batch of `fraction` of the batch size, drawn by (seed, step); on the
        i-th of n equal parts of it with `part` = (i, n)."""

    def training_gradient(self) -> Direction:
        """A copy of the gradient of the step's weighted loss over all processes, before clipping; to be asked for in
        `Method.finish`, when it is complete."""

    def utilities(self, batch: Batch, direction: Direction) -> Tensor:
        """<direction, grad l_t> of each next token by forward-mode differentiation, [rows, positions - 1], float32."""

    def perturbed(self, direction: Direction, amount: float) -> AbstractContextManager[None]:
        """Within: all trained parameters moved by `amount * direction`. After, in any case: restored bit for bit.
        Raises `RuntimeError` where the direction has changed within."""

    def preconditioned(self, direction: Direction) -> Direction:
        """The direction over the root of the optimizer's second moments, as in Adam; itself before the first step."""

    def momentum(self) -> Direction | None:
        """The optimizer's average of the gradients so far, clipped and of the weighted losses, without its bias towards
        zero, as in Adam; None before the first step."""

    def parameter_norm(self) -> float:
        """Euclidean norm of all trained parameters."""

    def has_dropout(self) -> bool:
        """Whether the training forward drops activations, so that its losses cannot be compared with `losses`."""

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        """The sums of these numbers over all processes."""

    def of_all_ranks(self, values: list[float]) -> list[float]:
        """These lists of all processes, one after the other."""


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A penalty on each supervised token: `weight` times a KL divergence, over the whole vocabulary, between the model
    and the one that training started from. `forward` is KL(start || model), `reverse` KL(model || start)."""

    weight: float
    kl: Literal["forward", "reverse"] = "forward"


@dataclasses.dataclass(frozen=True)
class WindowOutcome:
    """What a method concludes once it has weighted all micro-batches of a window."""

    scale: float = 1.0
    """Factor on the accumulated gradient, before clipping."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    """Lines for the person who watches the run."""


class Method:
    """A token weighting method; as it stands here it weights uniformly, and the loss stays as TRL computes it.

    For each optimizer step the trainer calls `prepare` and `examine` once, `weigh` for each micro-batch in order, and
    `finish` once.
    """

    signals: ClassVar[frozenset[str]] = frozenset()
    """What `weigh` wants to know of each token beside its loss: names of `SIGNALS`. Costs nothing where it is empty."""
    start_signals: frozenset[str] = frozenset()
    """Signals that `prepare` asks for by `signals_of_all_rows`, and `weigh` is not given."""
    anchor: Anchor | None = None
    """Added to the weighted loss, and divided by the window's supervised tokens as that is."""

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        """Evaluate what `weigh` will need; one dictionary of tensors for each micro-batch of the window."""
        return [{} for _ in window.batches]

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor | None:
        """Weights for one micro-batch.

        Args:
            losses: of each next token in the training forward, [rows, positions - 1], detached, 0 where unsupervised.
            mask: the supervised ones, the same shape; none in a row that only fills up the last batch of an epoch.
            prepared: this micro-batch's entry from `prepare`, and under their names the `signals` of the training
                forward: each [rows, positions - 1], float32, detached, 0 where unsupervised.

        Returns:
            Factors on the token losses, whose weighted sum is divided by the window's supervised tokens; so all ones is
            uniform weighting. None leaves the losses untouched.
        """
        return None

    def examine(self, window: Window, model: Evaluator) -> None:
        """Check what was prepared, after all else has asked for it and before the first `weigh`."""

    def finish(self, model: Evaluator) -> WindowOutcome:
        """The factor for the window's gradient, and numbers worth plotting."""
        return WindowOutcome()

    def preview(self, window: Window, model: Evaluator) -> Tensor | None:
        """What `weigh` would return for the one micro-batch of `window`, which is only shown. Changes no state."""
        [batch] = window.batches
        [prepared] = self.prepare(window, model)
        if self.signals:
            prepared = prepared | model.signals(batch)
        return self.weigh(model.losses(batch), supervised(batch), prepared)

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


def supervised(batch: Batch) -> Tensor:
    """Which next tokens carry a loss, [rows, positions - 1]."""
    mask: Tensor = batch["labels"][:, 1:] != -100
    return mask


def row_digests(batch: Batch) -> list[str]:
    """A digest of each row's tokens and labels without padding: names a row however the rows are batched."""
    present = batch["attention_mask"].bool().cpu().numpy()
    tokens, labels = batch["input_ids"].cpu().numpy(), batch["labels"].cpu().numpy()
    rows = (np.concatenate([tokens[row, here], labels[row, here]]) for row, here in enumerate(present))
    return [hashlib.blake2b(row.astype(np.int64).tobytes(), digest_size=12).hexdigest() for row in rows]
