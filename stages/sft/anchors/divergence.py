"""KL divergences between the next-token distributions of two models, tile by tile, with their gradient.

A divergence is over the whole vocabulary, and the logits of a micro-batch would be many times its activations. So they
are made for some tokens at a time, by the heads of both models, and given up again. The gradient is made with them: the
hidden states' and the head's own are all that the backward pass needs. At the model's logits z it is

    KL(start || model) = sum_v q_v (log q_v - log p_v)      dz = p - q
    KL(model || start) = sum_v p_v (log p_v - log q_v)      dz = p * (log p - log q - KL)

with p the model's probabilities and q those of the start.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

TILE = 1 << 25
"""Logits of a tile: 128 MiB in float32. Four are held at once."""


@dataclasses.dataclass(frozen=True)
class Head:
    """Hidden states of some tokens, [tokens, width], and the layer that makes their logits: weight [vocabulary, width],
    bias [vocabulary] or None."""

    states: Tensor
    weight: Tensor
    bias: Tensor | None

    def logits(self, part: slice, dtype: torch.dtype, precise: torch.dtype) -> Tensor:
        """Of some of the tokens, multiplied in `dtype`, as `precise`."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return linear(self.states[part].to(dtype), self.weight.to(dtype), bias).to(precise)


def weighted_kl(model: Head, start: Head, coefficients: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The sum over tokens of coefficient times divergence, and the divergences themselves.

    Products are made in autocast's type where that is on, all else in float32 at least. Gradients reach the model's
    hidden states, weight and bias.

    Args:
        model, start: of the same tokens; gradients reach the model's alone.
        coefficients: [tokens].
        reverse: KL(model || start) in place of KL(start || model).

    Returns:
        The sum, and without a gradient the divergence of each token in nats, [tokens].
    """
    kind = model.states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.states.dtype
    with torch.autocast(kind, enabled=False):
        total, divergences = _WeightedKl.apply(
            model.states, model.weight, model.bias, start, coefficients, reverse, dtype
        )
    return total, divergences


class _WeightedKl(torch.autograd.Function):  # type: ignore[misc]
    """Makes the gradients in the forward pass, where the logits are; the backward pass multiplies by the sum's own."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        start: Head,
        coefficients: Tensor,
        reverse: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(dtype, torch.float32)
        model = Head(states, weight.to(dtype), bias)  # cast once, not for each tile
        start = dataclasses.replace(start, weight=start.weight.to(dtype))
        of_states, of_weight, of_bias = (
            torch.zeros(part.shape, dtype=precise, device=part.device) if part is not None and wanted else None
            for part, wanted in zip((states, weight, bias), ctx.needs_input_grad, strict=False)
        )
        coefficients = coefficients.to(precise)
        divergences = torch.empty(len(states), dtype=precise, device=states.device)
        rows = max(1, TILE // weight.shape[0])
        for first in range(0, len(states), rows):
            part = slice(first, first + rows)
            log_p, log_q = (_log_softmax_(head.logits(part, dtype, precise)) for head in (model, start))
            divergences[part], slope = _reverse(log_p, log_q) if reverse else _forward(log_p, log_q)
            del log_p, log_q
            scaled = slope.mul_(coefficients[part, None]).to(dtype)
            del slope
            if of_states is not None:
                of_states[part] = scaled @ model.weight
            if of_weight is not None:
                of_weight += scaled.mT @ states[part].to(dtype)
            if of_bias is not None:
                of_bias += scaled.sum(0, dtype=precise)
        ctx.save_for_backward(of_states, of_weight, of_bias)
        ctx.dtypes = [None if part is None else part.dtype for part in (states, weight, bias)]
        ctx.mark_non_differentiable(divergences)
        return (coefficients * divergences).sum(), divergences

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        gradients = (
            None if gradient is None else (upstream * gradient).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*gradients, None, None, None, None)


def _log_softmax_(logits: Tensor) -> Tensor:
    return logits.sub_(logits.logsumexp(-1, keepdim=True))


def _forward(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(q || p) of each row, and its gradient to p's logits. Overwrites its arguments."""
    q = log_q.exp()
    divergence = log_q.sub_(log_p).mul_(q).sum(-1)
    return divergence, log_p.exp_().sub_(q)


def _reverse(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q) of each row, and its gradient to p's logits. Overwrites its arguments."""
    apart = torch.sub(log_p, log_q, out=log_q)
    p = log_p.exp_()
    divergence = (p * apart).sum(-1)
    return divergence, apart.sub_(divergence.unsqueeze(-1)).mul_(p)
