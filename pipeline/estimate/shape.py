"""A model's shape from its config alone, built without storage on torch's meta device, so that it is exact."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from stages.base.settings import MAKE, gguf_file
from stages.base.stage import EXISTING_MODEL, looks_like_path
from stages.harness.context import StageError
from stages.training.settings import LoraSettings


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
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.base.gguf import config_of
    from stages.base.make.pretrain import model_config

    file = gguf_file(config.model)
    try:
        if config.model == MAKE:
            described: Any = model_config(config.base, config.base.vocab_size)
        elif file is not None:
            described = config_of(file)
        else:
            if looks_like_path(config.model) and not Path(config.model).expanduser().exists():
                raise ConfigError(f"model folder {config.model} does not exist", where="model", fix=EXISTING_MODEL)
            described = AutoConfig.from_pretrained(Path(config.model).expanduser(), revision=config.model_revision)
    except (OSError, ValueError, StageError) as error:
        message = f"the config of {config.model} cannot be had: {str(error).splitlines()[0]}"
        fix = "Only config.json is needed: put it into a folder and name that with --set model=FOLDER."
        raise ConfigError(message, where="model", fix=fix) from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described, dtype=torch.bfloat16)
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
