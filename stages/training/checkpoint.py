"""Complete checkpoints: loading one to train on, and writing the one that training ends with."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.chat import chat_template, check_chat_template, pin_date
from stages.harness.context import Context, StageError
from stages.training.lora import load_adapter

UNLOADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError),
    *(SafetensorError, StrictDataclassError),
)
"""What transformers raises for checkpoints that are damaged, incomplete or of another kind."""


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
    except UNLOADABLE as error:
        raise StageError(f"{folder}: the model does not load: {error}", fix) from error
    if missing := sorted(info["missing_keys"]):
        names = ", ".join(missing[:3])
        raise StageError(f"{folder}: {len(missing)} weights are missing and would be random: {names}", fix)
    if not tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys() - set(tokenizer.all_special_tokens):
        # Without its file, such as tokenizer.json, transformers makes one of special tokens alone.
        problem = f"the tokenizer ({len(tokenizer)} tokens) has none for text: is its file there?"
        raise StageError(f"{folder}: {problem}", fix)
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


def make_saveable(ctx: Context[Any], model: Any, tokenizer: Any) -> dict[str, Any]:
    """Make sure before the first step that its checkpoint can be saved: all of it but the weights is, once.

    transformers loads generation configs that it refuses to save, such as a `temperature` without `do_sample`, and
    many models are published with one. What it refuses has no effect there, and is left out.

    Returns:
        The entries that are left out of the model's generation config, for the stage's record.

    Raises:
        StageError: something else cannot be saved, or does not come back as it was.
    """
    model.generation_config, left_out = saveable(model.generation_config)
    if left_out:
        entries = ", ".join(f"{name} {value}" for name, value in left_out.items())
        ctx.note(f"generation_config.json: the checkpoint leaves out what has no effect there: {entries}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            for part in (model.config, model.generation_config, tokenizer):
                part.save_pretrained(folder)
            again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except UNLOADABLE as error:
            raise StageError(
                f"the trained checkpoint could not be saved: {error}", "Correct the files of the model it starts from."
            ) from error
    if again.get_vocab() != tokenizer.get_vocab() or chat_template(again) != chat_template(tokenizer):
        problem = "the tokenizer is another one once it has been saved and loaded"
        raise StageError(problem, "Save it with this version of transformers, and start from that.")
    return left_out


def saveable(config: Any) -> tuple[Any, dict[str, Any]]:
    """A copy of a generation config without the entries that transformers refuses to save, and these entries.

    Entries are taken over one at a time, as long as one more is valid beside those before it.
    """
    kept, blank = copy.deepcopy(config), type(config)()
    left = {name: getattr(config, name) for name in config.to_diff_dict() if name != "transformers_version"}
    for name in left:
        setattr(kept, name, getattr(blank, name, None))
    while valid := next((name for name in left if _is_valid(kept, name, left[name])), None):
        setattr(kept, valid, left.pop(valid))
    return kept, left


def _is_valid(config: Any, name: str, value: Any) -> bool:
    """Whether transformers would save the config with this entry."""
    tried = copy.copy(config)
    setattr(tried, name, value)
    try:
        tried.validate(strict=True)
    except ValueError:
        return False
    return True


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


def whole_model(ctx: Context[Any], trainer: Any, base: Path, dtype: str) -> Any:
    """The trained model, put together again where FSDP or DeepSpeed had split it; without autocast, which blurs checks.

    Every process has to call this; only the main one gets a model it can use.

    Args:
        base: the checkpoint below an adapter, where one was trained.
        dtype: in which it was loaded.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    folder = ctx.state / "whole"
    trainer.save_model(str(folder))
    if not ctx.main:
        return None
    if isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel):
        return load_adapter(load_model_and_tokenizer(base, dtype)[0], folder)
    return load_model_and_tokenizer(folder, "float32")[0]
