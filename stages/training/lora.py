"""Low-rank adapters: peft's configuration, and the way back to a complete checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel

from stages.harness.context import StageError
from stages.training.settings import LoraSettings

COMPARED_TOKENS = 256
"""What the check of a merge reads: a wrong merge shows in any token, and more only costs memory."""
MERGE_TOLERANCE = 1e-3
"""Largest difference of a logit between adapter and merged weights, relative to the largest logit, in float32."""


def lora_config(settings: LoraSettings | None) -> LoraConfig | None:
    """peft's configuration, or None for full fine-tuning."""
    if settings is None:
        return None
    sizes = {"r": settings.rank, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
    return LoraConfig(**sizes, target_modules=settings.targets, bias="none", task_type="CAUSAL_LM")


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder` added, to train on. Raises StageError where none there fits it."""
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise StageError(f"{folder}: the adapter does not load: {error}", "Run SFT again with sft.lora.") from error


def merge_adapter(model: Any, token_ids: list[int], folder: Path) -> tuple[Any, float]:
    """Save the adapter to `folder`, merge it in float32, and compare the logits of `token_ids` before and after.

    All of it happens on the CPU, and only the first COMPARED_TOKENS tokens count: on a GPU the optimizer's state lies
    beside, and in float32 attention without a mask keeps a square of the length for each head.

    Returns:
        The merged model, and the largest difference of a logit relative to the largest logit.

    Raises:
        StageError: the difference is above `MERGE_TOLERANCE`, so that the merged model is another one.
    """
    model.to("cpu").float().eval()
    save_adapter(model, folder)
    ids = torch.tensor([token_ids[:COMPARED_TOKENS]])
    with torch.no_grad():
        with_adapter = model(input_ids=ids).logits.float()
        merged = model.merge_and_unload()
        without = merged(input_ids=ids).logits.float()
    difference = ((with_adapter - without).abs().max() / with_adapter.abs().max()).item()
    if not difference <= MERGE_TOLERANCE:
        fix = "Train without LoRA, or report this model."
        raise StageError(f"merging the adapter moves a logit by {difference:.2e} of the largest", fix)
    return merged, difference


def save_adapter(model: Any, folder: Path) -> None:
    """Write the trained adapter without what peft adds of the machine: a path, a model card, sets in hash order.

    TRL's `ref`, a copy of the adapter that training started from, is left out.
    """
    model.save_pretrained(folder, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
    ordered = {name: sorted(value) if isinstance(value, list) else value for name, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
