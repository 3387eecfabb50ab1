"""A model's shape from its config alone: parameters counted exactly, and what a forward pass over shapes keeps for the backward pass.

The model is built without storage, on torch's meta device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from stages.base.settings import MAKE, BaseSettings
from stages.sft.settings import LoraSettings


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a model.

    Attributes:
        parameters: all of them, tied ones once.
        linear: (name, in, out) of each linear module but the output layer: what adapters can go on.
        kv_bytes: bytes of key and value of one token over all layers, in 16-bit types.
    """

    parameters: int
    linear: tuple[tuple[str, int, int], ...]
    kv_bytes: int
    vocabulary: int
    hidden: int
    layers: int
    model: Any


def shape_of(config: PipelineConfig) -> Shape:
    """Build the model of a config on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.model == MAKE:
        found: Any = _made(config.base)
    else:
        folder = Path(config.model).expanduser()
        try:
            found = AutoConfig.from_pretrained(
                folder if folder.is_dir() else config.model, revision=None if folder.is_dir() else config.model_revision
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the config of {config.model} cannot be had: {str(error).splitlines()[0]}",
                where="model",
                fix="Only config.json is needed: put it into a folder and name that with --set model=FOLDER.",
            ) from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(found, dtype=torch.bfloat16, attn_implementation="sdpa")
    text = found.get_text_config()
    heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    head = model.get_output_embeddings()
    linear = tuple(
        (name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Shape(
        parameters,
        linear,
        2 * text.num_hidden_layers * heads * width * 2,
        text.vocab_size,
        text.hidden_size,
        text.num_hidden_layers,
        model,
    )


def _made(base: BaseSettings) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=base.vocab_size,
        hidden_size=base.hidden_size,
        intermediate_size=base.intermediate_size,
        num_hidden_layers=base.layers,
        num_attention_heads=base.heads,
        num_key_value_heads=base.kv_heads,
        head_dim=base.head_dim,
        tie_word_embeddings=True,
    )


def adapter_parameters(shape: Shape, lora: LoraSettings) -> int:
    """Parameters of the adapters: rank * (in + out) for each module."""
    wanted = lora.targets
    return sum(
        lora.rank * (n_in + n_out)
        for name, n_in, n_out in shape.linear
        if wanted == "all-linear" or name.rpartition(".")[2] in wanted
    )


def saved_bytes(shape: Shape, rows: int, tokens: int, checkpointing: bool) -> int:
    """Bytes that a forward pass in 16-bit types over `rows` x `tokens` keeps for the backward pass, weights and logits left out.

    Counted on shapes. Attention is counted as its fused kernels keep it: queries, keys, values and output.
    """
    import torch

    model, seen, total = shape.model, set(), 0
    # Tied and shared weights are views of parameters; they are there anyway.
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Any) -> Any:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in seen:
            seen.add(storage._cdata)
            total += storage.nbytes()
        alive.append(tensor)  # so that no other storage gets the same address
        return tensor

    alive: list[Any] = []
    ids = torch.zeros((rows, tokens), dtype=torch.long, device="meta")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    try:
        with _on_shapes(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(input_ids=ids, use_cache=False)
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    return total


@contextmanager
def _on_shapes() -> Iterator[None]:
    """Lets a model run on the meta device. Attention there takes the path that writes out all scores; this one keeps what flash attention
    keeps. And the search for packed rows, which looks at values, finds none."""
    import torch
    from transformers import masking_utils

    class Fused(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            output = query.new_empty((*query.shape[:-1], value.shape[-1]))
            ctx.save_for_backward(query, key, value, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError

    def attend(query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        return Fused.apply(query, key, value)

    with (
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attend),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", return_value=None),
    ):
        yield
