"""What the two training stages share: set-up, loading, progress, stop and resume, saving, and the proof that training happened.

Imports torch and transformers: only a stage process imports this module.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from stages.harness.context import StageError
from stages.training.checkpoint import _as_ids, load_model_and_tokenizer

SMALLEST_CHANGE = 1e-9
"""Relative change of all weights below which nothing was trained; the smallest real update moves float32 weights by far more."""


def training_proof(
    model: Any, tokenizer: Any, *, before: Path, after: Path, dtype: str, state: TrainerState, planned_steps: int
) -> dict[str, Any]:
    """Show that training happened and that what was saved is what was trained.

    Args:
        model: the trained model as it was saved (merged, where it had an adapter).
        tokenizer: the tokenizer that was saved.
        before: the checkpoint that training started from.
        after: the checkpoint that `save_checkpoint` wrote.
        dtype: the type it was saved in.
        state: the Trainer's state after training; its log holds every logged loss.
        planned_steps: optimizer steps that the settings ask for.

    Returns:
        The proof for `Result`: steps, first and last loss, relative change of the weights, and what was checked.

    Raises:
        StageError: a step is missing, a loss is not finite, no weight changed, or the saved checkpoint differs from the model.
    """
    if planned_steps < 1 or state.global_step != planned_steps:
        raise StageError(
            f"training did {state.global_step} of {planned_steps} planned steps",
            "See the log; this is an error in the stage.",
        )
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if not losses or not all(math.isfinite(loss) for loss in losses):
        raise StageError(
            "the training loss is missing or not finite",
            "Lower the learning rate; see the curve in record/metrics.jsonl.",
        )
    saved, saved_tokenizer = load_model_and_tokenizer(after, dtype)
    trained, reloaded = model.state_dict(), saved.state_dict()
    differ = [name for name in reloaded if name not in trained or not torch.equal(trained[name].cpu(), reloaded[name])]
    if differ or set(trained) - set(reloaded):
        raise StageError(
            f"{after}: the saved checkpoint differs from the trained model ({differ[:3]})",
            "This is an error in the stage.",
        )
    _check_agreement(saved, saved_tokenizer, tokenizer, after)
    change = relative_change(load_model_and_tokenizer(before, dtype)[0], saved)
    if change < SMALLEST_CHANGE:
        raise StageError(
            f"the weights did not change in {planned_steps} steps (relative change {change:.1e})",
            f"Raise the learning rate, or train longer: the updates vanish in {dtype}."
            if dtype != "float32"
            else "Raise the learning rate.",
        )
    return {
        "steps": state.global_step,
        "planned_steps": planned_steps,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "relative_weight_change": change,
        "checkpoint_reloads": True,
        "tokenizer_and_generation_config_agree": True,
    }


def _check_agreement(saved: Any, saved_tokenizer: Any, tokenizer: Any, folder: Path) -> None:
    disagreements = {
        "chat template": saved_tokenizer.chat_template != tokenizer.chat_template,
        "vocabulary": saved_tokenizer.get_vocab() != tokenizer.get_vocab(),
        "end of sequence": saved_tokenizer.eos_token_id != saved.config.eos_token_id
        or saved_tokenizer.eos_token_id not in _as_ids(saved.generation_config.eos_token_id),
        "padding": not (
            saved_tokenizer.pad_token_id == saved.config.pad_token_id == saved.generation_config.pad_token_id
        ),
    }
    wrong = [what for what, differs in disagreements.items() if differs]
    if wrong:
        raise StageError(
            f"{folder}: tokenizer, config and generation config disagree on: {', '.join(wrong)}",
            "Check the base model's files.",
        )


def relative_change(before: Any, after: Any) -> float:
    """Euclidean norm of the change of all parameters over the norm of the parameters before, in float64."""
    old = dict(before.named_parameters())
    squared_change = squared_norm = 0.0
    with torch.no_grad():
        for name, parameter in after.named_parameters():
            squared_change += (parameter.double() - old[name].double()).square().sum().item()
            squared_norm += old[name].double().square().sum().item()
    return math.sqrt(squared_change / squared_norm) if squared_norm else math.sqrt(squared_change)
