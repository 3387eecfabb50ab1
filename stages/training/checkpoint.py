"""What the two training stages share: set-up, loading, progress, stop and resume, saving, and the proof that training happened.

Imports torch and transformers: only a stage process imports this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.harness.context import Context, StageError


def load_model_and_tokenizer(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer from a complete checkpoint folder.

    Args:
        folder: the checkpoint (config, weights, tokenizer, chat template).
        dtype: `float32` or `bfloat16`, the type of the parameters in memory.

    Raises:
        StageError: the folder is not a checkpoint, weights are missing, or the tokenizer cannot hold a chat with this model.
    """
    fix = "Point `model:` at a complete Hugging Face checkpoint (config.json, safetensors, tokenizer, chat template)."
    if not (folder / "config.json").is_file():
        raise StageError(f"{folder}: no model here (config.json is missing)", fix)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise StageError(f"{folder}: the model does not load: {error}", fix) from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise StageError(
            f"{folder}: {len(info['missing_keys'])} weights are missing and would be random: {missing}", fix
        )
    _check_tokenizer(folder, model, tokenizer)
    return model, tokenizer


def _check_tokenizer(folder: Path, model: Any, tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise StageError(
            f"{folder}: the tokenizer has no chat template",
            "Use a chat model, or add chat_template.jinja to the folder.",
        )
    if tokenizer.eos_token_id is None:
        raise StageError(
            f"{folder}: the tokenizer names no end-of-sequence token", "Set eos_token in tokenizer_config.json."
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise StageError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}",
            "Use the model's own tokenizer.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def _as_ids(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def save_checkpoint(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Write a complete checkpoint: safetensors, config, generation config, tokenizer and chat template.

    The model is cast to `dtype` in place first. End-of-sequence and padding ids of both configs are made to agree with the tokenizer.
    The same weights give the same bytes; nothing about the machine or the run is written.
    """
    model.to(getattr(torch, dtype))
    stops = _as_ids(model.generation_config.eos_token_id)
    if tokenizer.eos_token_id not in stops:
        stops = [tokenizer.eos_token_id, *stops]
    model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def whole_model(ctx: Context[Any], trainer: Any) -> Any:
    """The trained model, without autocast (it would blur the checks) and, where FSDP or DeepSpeed had split it, put together again.

    Every process has to call this; only the main one gets a model it can use.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    folder = ctx.state / "whole"
    trainer.save_model(str(folder))
    if not ctx.main:
        return None
    return load_model_and_tokenizer(folder, "float32")[0]
