"""Exact token utilities by forward-mode differentiation: d l_t / d eps at theta + eps * direction, in one pass.

Under `no_grad` activations and their tangents last only until the next module has used them, so the memory is that of
two layers whatever the depth. Fused attention kernels and the chunked head have no forward mode, and get it here.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.packing import in_rows
from stages.sft.reweighting.base import Batch, Direction, supervised
from stages.sft.trl_internals import (
    SCALED_LOGITS,
    attention_can_be_set,
    attention_set_to,
    eager_experts,
    language_model,
    sdpa_attention_forward,
)

QUERY_BLOCK = 128
"""Queries whose attention probabilities exist at once while the tangent is computed."""
TOKEN_CHUNK = 512
"""Tokens whose logits exist at once."""
INSTEAD = "Set sft.method.utility to central_difference or finite_difference, which need nothing of the model."


class ForwardMode:
    """Token utilities of a causal language model with a plain linear head; StageError for other heads and attention.

    The model is as it is trained, a PEFT model included, but not wrapped for data parallelism. `parameters` are the
    trained ones; directions follow their order.
    """

    def __init__(self, model: Any, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.language_model = language_model(model)
        self.backbone = self.language_model.base_model
        self.head = self.language_model.get_output_embeddings()
        self._refuse_unsupported()
        positions = {id(parameter): index for index, parameter in enumerate(parameters)}
        named = ((name, id(parameter)) for name, parameter in self.backbone.named_parameters())
        self._backbone_positions = {name: positions[key] for name, key in named if key in positions}
        self._head_position = positions.get(id(self.head.weight))

    def _refuse_unsupported(self) -> None:
        config, name = self.language_model.config.get_text_config(), type(self.language_model).__name__
        reason = ""
        if type(self.head) is not torch.nn.Linear or self.head.bias is not None:
            reason = f"the head of {name} is a {type(self.head).__name__} with a bias or an adapter"
        elif scaled := [option for option in SCALED_LOGITS if getattr(config, option, None) not in (None, 1.0)]:
            reason = f"{name} scales its logits ({scaled[0]})"
        elif not attention_can_be_set(self.language_model):
            reason = f"the attention of {name} cannot be replaced, and its kernels have no forward mode"
        if reason:
            raise StageError(f"utility jvp: {reason}", INSTEAD)

    def utilities(self, inputs: Batch, direction: Direction) -> Tensor:
        """d l_t / d eps for the supervised next tokens of `inputs`, [rows, positions - 1], float32, 0 elsewhere.

        To be called in the modes and the autocast in which the losses are meant. StageError for a model with another
        operation that has no forward mode.
        """
        mask = supervised(inputs)
        arguments = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
        forward = in_rows(attention_with_forward_mode)
        attention = attention_set_to(self.language_model, "sdpa_with_forward_mode", forward)
        with torch.no_grad(), attention, eager_experts(self.language_model), fwAD.dual_level():
            duals = {
                name: fwAD.make_dual(self.backbone.get_parameter(name).detach(), direction[position])
                for name, position in self._backbone_positions.items()
            }
            try:
                out = torch.func.functional_call(self.backbone, duals, kwargs=arguments)
            except NotImplementedError as error:
                raise StageError(f"utility jvp: {str(error).splitlines()[0]}", INSTEAD) from error
            hidden, hidden_tangent = fwAD.unpack_dual(out.last_hidden_state[:, :-1][mask])
        with torch.no_grad():
            weight_tangent = None if self._head_position is None else direction[self._head_position]
            targets = inputs["labels"][:, 1:][mask]
            changes = loss_tangent(hidden, hidden_tangent, self.head.weight, weight_tangent, targets)
        return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, changes)


def loss_tangent(
    hidden: Tensor, hidden_tangent: Tensor | None, weight: Tensor, weight_tangent: Tensor | None, targets: Tensor
) -> Tensor:
    """Tangent of -log softmax(hidden @ weight.T)[target]: sum over v of (p_v - [v = target]) * dz_v, [tokens], float32.

    Hidden states are [tokens, width], the weight is [vocabulary, width], and a tangent is None where they do not move.
    """
    parts = []
    for start in range(0, len(hidden), TOKEN_CHUNK):
        chunk = slice(start, start + TOKEN_CHUNK)
        probabilities = torch.softmax(F.linear(hidden[chunk], weight).float(), -1)
        change = torch.zeros_like(probabilities)
        if hidden_tangent is not None:
            change += F.linear(hidden_tangent[chunk], weight)
        if weight_tangent is not None:
            change += F.linear(hidden[chunk], weight_tangent.to(weight.dtype))
        parts.append((probabilities * change).sum(-1) - change.gather(-1, targets[chunk].unsqueeze(-1)).squeeze(-1))
    return torch.cat(parts) if parts else torch.zeros(0, device=hidden.device)


def attention_with_forward_mode(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The usual fused attention on the primals, and its tangent by the product rule, block by block of queries.

    query, key, value: [rows, heads, positions, width]; keys and values have fewer heads under grouped-query attention.
    """
    (query, dq), (key, dk), (value, dv) = (fwAD.unpack_dual(part) for part in (query, key, value))
    out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if dq is None and dk is None and dv is None:
        return out, None
    groups = query.shape[1] // key.shape[1]
    dq = torch.zeros_like(query) if dq is None else dq
    dk = torch.zeros_like(key) if dk is None else dk
    dv = torch.zeros_like(value) if dv is None else dv
    key, value, dk, dv = (part.repeat_interleave(groups, 1) if groups > 1 else part for part in (key, value, dk, dv))
    scale = query.shape[-1] ** -0.5 if options.get("scaling") is None else options["scaling"]
    blocks = []
    for start in range(0, query.shape[2], QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, query.shape[2])
        seen = end if attention_mask is None else key.shape[2]  # causal: later keys are never seen
        q, k, v = query[:, :, start:end], key[:, :, :seen], value[:, :, :seen]
        scores = (q @ k.mT).float() * scale
        dscores = (dq[:, :, start:end] @ k.mT + q @ dk[:, :, :seen].mT).float() * scale
        if attention_mask is None:
            positions = torch.arange(seen, device=query.device)
            scores.masked_fill_(positions > positions[start:end].unsqueeze(-1), float("-inf"))
        elif attention_mask.dtype == torch.bool:
            scores.masked_fill_(~attention_mask[:, :, start:end], float("-inf"))
        else:
            scores += attention_mask[:, :, start:end]
        weights = torch.softmax(scores, -1).nan_to_num(0.0)  # a padded query may see nothing
        dweights = weights * dscores
        dweights -= weights * dweights.sum(-1, keepdim=True)
        blocks.append(dweights.to(v.dtype) @ v + weights.to(v.dtype) @ dv[:, :, :seen])
    tangent = torch.cat(blocks, 2).transpose(1, 2).to(out.dtype).contiguous()
    return fwAD.make_dual(out, tangent), None
