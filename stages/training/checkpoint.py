"""Complete checkpoints: loading one to train on, and writing the one that training ends with."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.chat import check_chat_template, pin_date
from stages.harness.context import Context, StageError


def load_model_and_tokenizer(folder: Path, dtype: str, date: str | None = None) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer from a complete checkpoint folder.

    Args:
        folder: the checkpoint (config, weights, tokenizer, chat template).
        dtype: `float32` or `bfloat16`, the type of the parameters in memory.
        date: as of when the tokenizer renders conversations (see `evaluation.chat.pin_date`).

    Raises:
        StageError: the folder is not a checkpoint, weights are missing, or its tokenizer cannot hold a chat.
    """
    fix = "Point `model:` at a complete Hugging Face checkpoint (config.json, safetensors, tokenizer, chat template)."
    if not (folder / "config.json").is_file():
        raise StageError(f"{folder}: no model here (config.json is missing)", fix)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        pin_date(tokenizer, date)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise StageError(f"{folder}: the model does not load: {error}", fix) from error
    if missing := sorted(info["missing_keys"]):
        names = ", ".join(missing[:3])
        raise StageError(f"{folder}: {len(missing)} weights are missing and would be random: {names}", fix)
    try:
        check_chat_template(tokenizer)
    except ValueError as error:
        fix = "Use a chat model, or put a chat_template.jinja that fits into the folder."
        raise StageError(f"{folder}: {error}", fix) from error
    if tokenizer.eos_token_id is None:
        fix = "Set eos_token in tokenizer_config.json."
        raise StageError(f"{folder}: the tokenizer names no end-of-sequence token", fix)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        fix = "Use the model's own tokenizer."
        raise StageError(f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}", fix)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def eos_token_ids(config: Any) -> list[int]:
    """The end-of-sequence tokens that a generation config names."""
    ids = config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def save_checkpoint(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Write a complete checkpoint: safetensors, config, generation config, tokenizer and chat template.

    The model is cast to `dtype` in place first, and both configs are made to agree with the tokenizer on the ids that
    end a sequence and pad it. The same weights give the same bytes: nothing about machine or run is written.
    """
    model.to(getattr(torch, dtype))
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    ends = eos_token_ids(model.generation_config)
    if end not in ends:
        ends = [end, *ends]
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.config.eos_token_id = end
    model.generation_config.pad_token_id = model.config.pad_token_id = padding
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def whole_model(ctx: Context[Any], trainer: Any) -> Any:
    """The trained model, put together again where FSDP or DeepSpeed had split it; without autocast, which blurs checks.

    Every process has to call this; only the main one gets a model it can use.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    folder = ctx.state / "whole"
    trainer.save_model(str(folder))
    return load_model_and_tokenizer(folder, "float32")[0] if ctx.main else None
