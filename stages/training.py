"""What the two training stages share: set-up, loading, progress, stop and resume, saving, and the proof that training happened.

Imports torch and transformers: only a stage process imports this module.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import os
import random
import shutil
import time
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainerState
from transformers.integrations import TensorBoardCallback

from stages import ranks
from stages.runtime import Context, StageError, StageStopped, write_json

TRAINER_STATE = "trainer_state.json"
"""The file that `transformers.Trainer` writes last into a checkpoint: a checkpoint without it is incomplete."""

SMALLEST_CHANGE = 1e-9
"""Relative change of all weights below which nothing was trained; the smallest real update moves float32 weights by far more."""


@functools.cache  # torch sorts what is registered, and cannot sort the same twice
def _load_onto_numbered_cpus() -> None:
    """One of several processes on a CPU has the device `cpu:N`, onto which the Trainer loads an optimizer; torch knows `cpu` only."""
    torch.serialization.register_package(0, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None)


def prepare_torch(ctx: Context[Any]) -> None:
    """Seed every generator, set the thread count, ask torch for deterministic kernels, and silence progress bars."""
    torch.set_num_threads(ctx.machine.threads)
    random.seed(ctx.seed)
    np.random.seed(ctx.seed)
    torch.manual_seed(ctx.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time and changes no result
    transformers.utils.logging.disable_progress_bar()
    _load_onto_numbered_cpus()
    if ctx.machine.device == "cuda" and not torch.cuda.is_available():
        raise StageError(
            "the run asks for a CUDA device, and torch sees none", "Set `execution: {device: cpu}`, or repair the CUDA set-up."
        )


def shared_trainer_options(ctx: Context[Any], *, logging_steps: int, checkpoint_steps: int) -> dict[str, Any]:
    """The `TrainingArguments` that both training stages set in the same way: seeds, device, logging, checkpoints in `ctx.state`."""
    return {
        "output_dir": str(ctx.state / "checkpoints"),
        "seed": ctx.seed,
        "data_seed": ctx.seed,
        "use_cpu": ctx.machine.device == "cpu",
        "logging_strategy": "steps",
        "logging_steps": logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "save_strategy": "steps",
        "save_steps": checkpoint_steps,
        "save_total_limit": 2,
        "eval_strategy": "no",
        "report_to": list(ctx.settings.trackers) or "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        "dataloader_num_workers": 0,
        "average_tokens_across_devices": True,
        "ddp_backend": "gloo" if ctx.machine.device == "cpu" and "RANK" in os.environ else None,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": ctx.machine.device == "cuda",
    }


def check_trainer_options(options: Mapping[str, Any], config_class: type, owned: Mapping[str, str]) -> None:
    """Check a user's `trainer:` mapping against TRL's own config class.

    Args:
        options: what the user wrote.
        config_class: `trl.SFTConfig` or `trl.GRPOConfig`.
        owned: option of the config class -> where this project sets it instead.

    Raises:
        StageError: an option that does not exist (with the nearest that does), that we set ourselves, or of the wrong type.
    """
    fields = {field.name for field in dataclasses.fields(config_class)}
    types = typing.get_type_hints(config_class)
    for name, value in options.items():
        if name in owned:
            raise StageError(f"trainer.{name}: this option is set by the pipeline", f"Use {owned[name]} instead.")
        if name not in fields:
            near = difflib.get_close_matches(name, sorted(fields - set(owned)), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise StageError(
                f"trainer.{name}: {config_class.__name__} has no such option",
                f"{hint}See the documentation of trl.{config_class.__name__}.",
            )
        try:
            TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            reason = "; ".join(sorted({item["msg"] for item in error.errors()}))
            raise StageError(f"trainer.{name}: {value!r} does not fit: {reason}", f"{config_class.__name__} wants {types[name]}.") from None


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
        raise StageError(f"{folder}: {len(info['missing_keys'])} weights are missing and would be random: {missing}", fix)
    _check_tokenizer(folder, model, tokenizer)
    return model, tokenizer


def _check_tokenizer(folder: Path, model: Any, tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise StageError(f"{folder}: the tokenizer has no chat template", "Use a chat model, or add chat_template.jinja to the folder.")
    if tokenizer.eos_token_id is None:
        raise StageError(f"{folder}: the tokenizer names no end-of-sequence token", "Set eos_token in tokenizer_config.json.")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise StageError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}", "Use the model's own tokenizer."
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
            f"training did {state.global_step} of {planned_steps} planned steps", "See the log; this is an error in the stage."
        )
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if not losses or not all(math.isfinite(loss) for loss in losses):
        raise StageError("the training loss is missing or not finite", "Lower the learning rate; see the curve in record/metrics.jsonl.")
    saved, saved_tokenizer = load_model_and_tokenizer(after, dtype)
    trained, reloaded = model.state_dict(), saved.state_dict()
    differ = [name for name in reloaded if name not in trained or not torch.equal(trained[name].cpu(), reloaded[name])]
    if differ or set(trained) - set(reloaded):
        raise StageError(f"{after}: the saved checkpoint differs from the trained model ({differ[:3]})", "This is an error in the stage.")
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
        "padding": not (saved_tokenizer.pad_token_id == saved.config.pad_token_id == saved.generation_config.pad_token_id),
    }
    wrong = [what for what, differs in disagreements.items() if differs]
    if wrong:
        raise StageError(
            f"{folder}: tokenizer, config and generation config disagree on: {', '.join(wrong)}", "Check the base model's files."
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


def find_resumable_checkpoint(folder: Path) -> Path | None:
    """The latest complete Trainer checkpoint in `folder`, or None. Incomplete ones (no trainer_state.json) are removed."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / TRAINER_STATE).is_file():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def record_config(ctx: Context[Any], config: Any) -> None:
    """Write the trainer's complete configuration, defaults included, to `record/trainer_config.json`; of paths the last part only."""
    values = {name: value for name, value in config.to_dict().items() if name not in ("output_dir", "logging_dir", "run_name")}
    plain = json.loads(json.dumps(values, default=str))
    shown = {name: Path(value).name if isinstance(value, str) and value.startswith("/") else value for name, value in plain.items()}
    write_json(ctx.record / "trainer_config.json", shown)


def train(ctx: Context[Any], trainer: Any) -> None:
    """Run `trainer` to its last step, resuming from `ctx.state` where an earlier attempt left a checkpoint.

    From here on a stop request no longer interrupts the process: during training it saves a checkpoint, afterwards the stage finishes.

    Raises:
        StageStopped: a stop was requested and the checkpoint is saved.
    """
    if ctx.main:
        record_config(ctx, trainer.args)
    checkpoint = find_resumable_checkpoint(Path(trainer.args.output_dir))
    ctx.stops_gracefully = True
    if checkpoint is None:
        trainer.train()
    else:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
        if 0 < trainer.args.max_steps != state.max_steps:
            raise StageError(
                f"{checkpoint}: left by a run of {state.max_steps} steps, and this one has {trainer.args.max_steps}: "
                "it cannot be continued from there",
                f"Remove {ctx.state}, and the run starts anew.",
            )
        over = ": no step is left to train, its result is saved" if state.global_step == state.max_steps else ""
        ctx.note(f"resuming from step {state.global_step} of {state.max_steps}{over}")
        if state.global_step < state.max_steps:
            trainer.train(resume_from_checkpoint=str(checkpoint))
        else:  # training was over: the Trainer's loop would take one step more, so only its results are loaded
            trainer._load_from_checkpoint(state.best_model_checkpoint if trainer.args.load_best_model_at_end else str(checkpoint))
            trainer.state = state
    if trainer.state.global_step < trainer.state.max_steps and ctx.stop_requested:
        raise StageStopped


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


class StageCallback(TrainerCallback):  # type: ignore[misc]
    """Connects a Trainer to the stage: progress, the training curve, and leaving on request.

    On a resume the curve file is rebuilt from the Trainer's own log up to the checkpoint, so no step stands in it twice.
    """

    def __init__(self, ctx: Context[Any], phase: str, shown: tuple[str, ...] = ("loss",)) -> None:
        self.ctx = ctx
        self.phase = phase
        self.shown = shown
        """Logged values that go with the progress report; the curve holds all of them."""
        self.tokens = 0.0
        self.seconds = 0.0
        self._tokens_before = 0.0
        self._last_log = self._last_tokens = time.monotonic()

    @property
    def tokens_per_second(self) -> float:
        """Tokens (padding excluded) processed by this process over the time between its first and last log."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.ctx.main:
            (self.ctx.record / "metrics.jsonl").write_text("", encoding="utf-8")
        for entry in state.log_history:
            if "loss" in entry:
                self.ctx.curve(entry["step"], **{name: value for name, value in entry.items() if name != "step"})
        self._tokens_before = float(state.num_input_tokens_seen)  # GRPO's count goes on after a resume, SFT's begins at 0 again
        self._last_log = self._last_tokens = time.monotonic()
        self.ctx.progress(state.global_step, state.max_steps, self.phase)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not control.should_log:  # otherwise on_log reports the same step with its metrics
            self.ctx.progress(state.global_step, state.max_steps, self.phase)
        # Every process asks the others after every step, so that all of them know of a request after the same one.
        if any(ranks.gather(self.ctx.stop_requested)):
            self.ctx.stop_requested = True
            if self.may_stop(state.global_step):
                control.should_save = True
                control.should_training_stop = True

    def may_stop(self, step: int) -> bool:
        """Whether a checkpoint after this step holds all that a resume needs."""
        return True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        values = {name: value for name, value in logs.items() if isinstance(value, int | float)}
        if not math.isfinite(values["loss"]):
            raise StageError(f"the loss is {values['loss']} at step {state.global_step}", "Lower the learning rate or the gradient clip.")
        self.ctx.curve(state.global_step, **values)
        now = time.monotonic()
        self.seconds += now - self._last_log
        self._last_log = now
        shown = {name: round(values[name], 4) for name in self.shown if name in values}
        if "num_tokens" in values:  # a step that trains on completions sampled before has none of its own
            tokens = values["num_tokens"] - self._tokens_before
            shown["tokens_per_s"] = round(tokens / max(now - self._last_tokens, 1e-9))
            self._tokens_before, self._last_tokens, self.tokens = values["num_tokens"], now, self.tokens + tokens
        self.ctx.progress(state.global_step, state.max_steps, self.phase, **shown)


def tensorboard(ctx: Context[Any]) -> list[TrainerCallback]:
    """The callback that writes the Trainer's log to `record/tensorboard`; in the main process only. A resumed run adds a file, in which
    the steps that were lost with the interrupted one stand again."""
    if not ctx.main:
        return []
    from tensorboardX import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(str(ctx.record / "tensorboard")))]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file of objects. Raises StageError naming the line that is not one."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise StageError(f"{path}:{number}: not JSON ({error.msg})", "Run the data stage again, or correct the file.") from None
            if not isinstance(row, dict):
                raise StageError(f"{path}:{number}: not a JSON object", "Run the data stage again, or correct the file.")
            rows.append(row)
    return rows
