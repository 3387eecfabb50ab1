"""The proof of a training stage: every step was taken, and the saved checkpoint is the model that was trained."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from evaluation.chat import chat_template
from stages.harness.context import StageError
from stages.training.checkpoint import eos_token_ids, load_model_and_tokenizer

SMALLEST_CHANGE = 1e-9
"""Relative change of all weights below which nothing was trained; any real update moves float32 weights by far more."""


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
        StageError: a step is missing, a loss or a weight not finite, no weight changed, or the checkpoint differs from
            the model.
    """
    if planned_steps < 1 or state.global_step != planned_steps:
        fix = "See the log; this is an error in the stage."
        raise StageError(f"training did {state.global_step} of {planned_steps} planned steps", fix)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if not losses or not all(map(math.isfinite, losses)):
        fix = "Lower the learning rate; see the curve in record/metrics.jsonl."
        raise StageError("the training loss is missing or not finite", fix)
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:  # a loss is logged before its step, and not in each
        problem = f"{len(broken)} trained weights are not finite after the last step, the first of them {broken[0]}"
        raise StageError(problem, "Lower the learning rate; with logging_steps: 1 the curve shows where it went wrong.")
    saved, saved_tokenizer = load_model_and_tokenizer(after, dtype)
    trained, reloaded = model.state_dict(), saved.state_dict()
    differ = [name for name in reloaded if name not in trained or not torch.equal(trained[name].cpu(), reloaded[name])]
    if differ or set(trained) - set(reloaded):
        fix = "This is an error in the stage."
        raise StageError(f"{after}: the saved checkpoint differs from the trained model ({differ[:3]})", fix)
    end, padding = saved_tokenizer.eos_token_id, saved_tokenizer.pad_token_id
    disagreements = {
        "chat template": chat_template(saved_tokenizer) != chat_template(tokenizer),
        "vocabulary": saved_tokenizer.get_vocab() != tokenizer.get_vocab(),
        "end of sequence": end != saved.config.eos_token_id or end not in eos_token_ids(saved.generation_config),
        "padding": not padding == saved.config.pad_token_id == saved.generation_config.pad_token_id,
    }
    if any(disagreements.values()):
        parts = ", ".join(part for part, differs in disagreements.items() if differs)
        message = f"{after}: tokenizer, config and generation config disagree on: {parts}"
        raise StageError(message, "Check the base model's files.")
    change = relative_change(load_model_and_tokenizer(before, dtype)[0], saved)
    if change < SMALLEST_CHANGE:
        message = f"the weights did not change in {planned_steps} steps (relative change {change:.1e})"
        longer = f", or train longer: the updates vanish in {dtype}" if dtype != "float32" else ""
        raise StageError(message, f"Raise the learning rate{longer}.")
    return {
        "steps": state.global_step,
        "planned_steps": planned_steps,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "relative_weight_change": change,
        "checkpoint_reloads": True,
        "tokenizer_and_generation_config_agree": True,
    }


def relative_change(before: Any, after: Any) -> float:
    """Euclidean norm of the change of all parameters over the norm of the parameters before, in float64."""
    old = dict(before.named_parameters())
    squared_change = squared_norm = 0.0
    with torch.no_grad():
        for name, parameter in after.named_parameters():
            squared_change += (parameter.double() - old[name].double()).square().sum().item()
            squared_norm += old[name].double().square().sum().item()
    return math.sqrt(squared_change / squared_norm) if squared_norm else math.sqrt(squared_change)
