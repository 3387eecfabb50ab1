"""Low-rank adapters as both training stages use them: the configuration, and the way back to a complete checkpoint.

Imports torch and peft: only a stage process imports this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer

from stages.harness.context import StageError
from stages.sft.settings import LoraSettings

MERGE_TOLERANCE = 1e-3
"""Largest difference of a logit between adapter and merged weights, relative to the largest logit, in float32."""


def lora_config(settings: LoraSettings | None) -> LoraConfig | None:
    """peft's configuration, or None for full fine-tuning."""
    if settings is None:
        return None
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter of `folder` on it, to be trained on. Raises StageError where there is none that fits."""
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise StageError(f"{folder}: the adapter does not load: {error}", "Run SFT again with sft.lora.") from error


def merge_adapter(model: Any, token_ids: list[int], folder: Path) -> tuple[Any, float]:
    """Save the adapter to `folder`, merge it in float32, and compare the logits of `token_ids` before and after.

    Returns:
        The merged model, and the largest difference of a logit relative to the largest logit.

    Raises:
        StageError: the merged model is another model.
    """
    model.float().eval()
    save_adapter(model, folder)
    ids = torch.tensor([token_ids], device=model.device)
    with torch.no_grad():
        with_adapter = model(input_ids=ids).logits.float()
        merged = model.merge_and_unload()
        without = merged(input_ids=ids).logits.float()
    difference = ((with_adapter - without).abs().max() / with_adapter.abs().max()).item()
    if not difference <= MERGE_TOLERANCE:
        raise StageError(
            f"merging the adapter moves a logit by {difference:.2e} of the largest",
            "Train without LoRA, or report this model.",
        )
    return merged, difference


def merged_parameters(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters of the model with its adapter added, by their names without it, one at a time. The model stays as it is.

    peft's own merging adds to the weights in place and subtracts again, and what is left differs by rounding: the weights below the adapter
    would move with every step, in bfloat16 by much, and a resumed run would go on from others.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in model.named_parameters():
        if model.prefix in name:  # the adapter's own
            continue
        layer, _, part = name.partition(".base_layer.")
        data = parameter.data
        if part == "weight":
            with torch.no_grad():
                data = (data + layers[layer].get_delta_weight("default")).to(data.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), data


def save_adapter(model: Any, folder: Path) -> None:
    """Write the trained adapter, without what peft adds about the machine: the base model's path, a model card, sets in hash order.

    TRL's `ref`, a copy of the adapter that training started from, is none of the result.
    """
    model.save_pretrained(folder, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    ordered = {name: sorted(value) if isinstance(value, list) else value for name, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
