"""A method's anchor in training: the KL divergence to the model that training started from, in the model's own forward.

The model itself with its adapter switched off is that start under LoRA; else a copy of the weights is kept, which no
step moves. For each micro-batch its hidden states are made first. While the training forward is under way, and its
hidden states are there with their graph, both go through the heads (stages/sft/anchors/divergence.py).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor
from torch.distributed.tensor import DTensor

from stages.sft.anchors.divergence import Head, weighted_kl
from stages.sft.reweighting.base import Anchor, Batch, supervised
from stages.sft.trl_internals import (
    adapter_off,
    forward_without_head,
    language_model,
    refuse_scaled_logits,
    share_out,
    watch_hidden_states,
)


class AnchoredForward:
    """Measures the penalty of an `Anchor` on the micro-batches of a model. Make it before the model is trained.

    Attributes:
        total: of the last forward pass within `measured`: the sum over its tokens of coefficient times divergence.
        divergences: of its supervised tokens, in nats, [tokens], without a gradient.
    """

    def __init__(self, model: Any, anchor: Anchor, *, bfloat16: bool, accelerator: Any | None = None) -> None:
        """
        Args:
            model: with TRL's fused head, not wrapped for data parallelism.
            bfloat16: whether its forward runs under bfloat16 autocast.
            accelerator: accelerate's, where it will share the model out by FSDP2.

        Raises:
            ValueError: the head scales logits, which the divergence would need to know of.
        """
        self._anchor, self._bfloat16, self._sharded = anchor, bfloat16, accelerator is not None
        own = language_model(model)
        refuse_scaled_logits(own, "the anchor")
        self._model, self._own = model, own
        if is_peft_model(model):
            self._start, self._start_own = model, own
        else:
            self._start = self._start_own = copy.deepcopy(model).requires_grad_(False).eval()
            watch_hidden_states(self._start_own, self._seen)
        watch_hidden_states(own, self._seen)
        if accelerator is not None and self._start is not model:
            share_out(self._start, accelerator)
        self._use: Callable[[Tensor], None] | None = None
        """What is done with hidden states at the time; nothing in a forward pass that is not of the anchor."""
        self.total = self.divergences = torch.zeros(0)

    def _seen(self, states: Tensor) -> None:
        if self._use is not None:
            self._use(states)

    @contextmanager
    def measured(
        self, inputs: Batch, at_rest: Callable[[], AbstractContextManager[None]], weights: Tensor | None = None
    ) -> Iterator[Callable[[], Tensor]]:
        """Within: the model's forward on `inputs` measures the penalty, which what is yielded gives afterwards.

        Args:
            inputs: a micro-batch on the model's device.
            at_rest: makes a context in which the model is in eval mode.
            weights: of its rows, [rows]: factors on their divergences.
        """
        mask = supervised(inputs)
        coefficients = torch.full(mask.shape, self._anchor.weight, device=mask.device)
        if weights is not None:
            coefficients = coefficients * weights.to(coefficients).unsqueeze(-1)
        with at_rest() if self._start is self._model else nullcontext():
            start = self._start_states(inputs, mask)

        def compare(states: Tensor) -> None:
            model = _head(self._own, states[:, :-1][mask])
            self.total, self.divergences = weighted_kl(
                model, _head(self._start_own, start), coefficients[mask], reverse=self._anchor.kl == "reverse"
            )

        self._use = compare
        try:
            yield lambda: self.total
        finally:
            self._use = None
            self.total = torch.zeros(0)  # its graph holds the activations

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _start_states(self, inputs: Batch, mask: Tensor) -> Tensor:
        """Hidden states of the start at the supervised tokens, [tokens, width]."""
        kept: list[Tensor] = []
        self._use = lambda states: kept.append(states[:, :-1][mask])
        off = adapter_off(self._model) if self._start is self._model else nullcontext()
        with off, torch.autocast(mask.device.type, torch.bfloat16, enabled=self._bfloat16):
            # Of a model that is shared out only a whole forward pass gathers the weights.
            forward_without_head(self._start if self._sharded else self._start_own, inputs, whole=self._sharded)
        self._use = None
        return kept[0]


def _head(model: Any, states: Tensor) -> Head:
    """The model's head with these states. Weights that FSDP2 shares out are whole within the model's forward."""
    layer = model.get_output_embeddings()
    weight, bias = (part.full_tensor() if isinstance(part, DTensor) else part for part in (layer.weight, layer.bias))
    return Head(states, weight, bias)
