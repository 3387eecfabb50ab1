"""A model's shape from its config alone: its parameters, and what a forward pass keeps for the backward pass.

The model is built without storage, on torch's meta device, so both are counted exactly.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from stages.base.settings import MAKE, gguf_file
from stages.harness.context import StageError
from stages.training.settings import LoraSettings

ATTENTION = "vcore_shapes"
"""Name of an attention that computes nothing and keeps what torch's fused kernels keep."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model without storage.

    Attributes:
        model: on the meta device.
        described: transformers' config of it.
        text: the config of its language model.
        parameters: all of them, tied ones once.
        kv_bytes: bytes of key and value of one token over all layers, in 16-bit types.
    """

    model: Any
    described: Any
    text: Any
    parameters: int
    kv_bytes: int


def shape_of(config: PipelineConfig) -> Shape:
    """Build the model of a config on the meta device. Raises `ConfigError` where the model's config cannot be read."""
    import torch
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

    from stages.base.gguf import config_of
    from stages.base.make.pretrain import model_config

    file = gguf_file(config.model)
    try:
        if config.model == MAKE:
            described: Any = model_config(config.base, config.base.vocab_size)
        elif file is not None:
            described = config_of(file)
        else:
            described = AutoConfig.from_pretrained(Path(config.model).expanduser(), revision=config.model_revision)
    except (OSError, ValueError, StageError) as error:
        message = f"the config of {config.model} cannot be had: {str(error).splitlines()[0]}"
        fix = "Only config.json is needed: put it into a folder and name that with --set model=FOLDER."
        raise ConfigError(message, where="model", fix=fix) from error
    AttentionInterface.register(ATTENTION, _attend)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described, dtype=torch.bfloat16, attn_implementation=ATTENTION)
    text = described.get_text_config()
    kv_heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Shape(model, described, text, parameters, 2 * text.num_hidden_layers * kv_heads * width * 2)


def adapter_parameters(shape: Shape, lora: LoraSettings) -> int:
    """Parameters of the adapters that peft makes, those of a layer's experts included. Raises `ConfigError` where peft
    refuses these settings for this model."""
    from peft import get_peft_model

    from stages.training.lora import lora_config

    try:
        adapted = get_peft_model(copy.deepcopy(shape.model), lora_config(lora))
    except ValueError as error:
        fix = "Change lora.targets or lora.dropout of the stage."
        raise ConfigError(f"peft refuses this adapter: {error}", where="lora", fix=fix) from error
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def saved_bytes(shape: Shape, rows: int, tokens: int, checkpointing: bool) -> int:
    """Bytes that a forward pass in 16-bit types over `rows` x `tokens` keeps for the backward pass, without weights and
    logits."""
    import torch

    model, saved = shape.model, set()

    def keep(tensor: Any) -> Any:
        saved.add(tensor.untyped_storage())
        return tensor

    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(input_ids=torch.zeros((rows, tokens), dtype=torch.long, device="meta"), use_cache=False)
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    # Tied and shared weights are views of parameters; they are there anyway.
    return sum(storage.nbytes() for storage in saved - {weight.untyped_storage() for weight in model.parameters()})


def _attend(module: Any, query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> tuple[Any, None]:
    """Attention that keeps queries, keys, values and output. On the meta device torch's own would keep all scores."""
    import torch

    class Fused(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            output = query.new_empty((*query.shape[:-1], value.shape[-1]))
            ctx.save_for_backward(query, key, value, output)
            return output

    window = options.get("sliding_window")
    if window is not None and key.shape[2] >= window:
        # It needs a mask; with one, transformers repeats keys and values for each query head.
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], 1) for states in (key, value))
    return Fused.apply(query, key, value).transpose(1, 2).contiguous(), None
