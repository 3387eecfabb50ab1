"""The SFT stage: demonstrations and a model in, a fine-tuned checkpoint and its training curve out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig

from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import write_json
from stages.sft.reweighting import make_method
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer
from stages.training.checkpoint import load_model_and_tokenizer, save_checkpoint, whole_model
from stages.training.loop import StageCallback, tensorboard, train
from stages.training.lora import lora_config, merge_adapter
from stages.training.options import check_options, shared_trainer_options
from stages.training.proof import training_proof
from stages.training.rows import read_rows
from stages.training.setup import prepare_torch

OWNED_OPTIONS: dict[str, str] = {
    **{
        name: f"sft.{name}"
        for name in ("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "max_length", "max_steps")
    },
    **{
        name: f"sft.{name}"
        for name in ("adam_beta1", "adam_beta2", "adam_epsilon", "gradient_checkpointing", "completion_only_loss")
    },
    **{name: f"sft.{name}" for name in ("packing", "logging_steps")},
    **dict.fromkeys(("packing_strategy", "padding_free", "eval_packing"), "sft.packing"),
    **dict.fromkeys(("bf16", "fp16", "model_init_kwargs", "bf16_full_eval", "fp16_full_eval"), "sft.dtype"),
    **dict.fromkeys(
        ("per_device_train_batch_size", "gradient_accumulation_steps", "auto_find_batch_size"), "sft.micro_batch_size"
    ),
    **dict.fromkeys(("save_steps", "save_strategy", "save_total_limit", "save_only_model"), "sft.checkpoint_steps"),
    **dict.fromkeys(("logging_strategy", "logging_first_step", "logging_nan_inf_filter"), "sft.logging_steps"),
    **dict.fromkeys(("seed", "data_seed", "full_determinism"), "seed"),
    **dict.fromkeys(("use_cpu", "local_rank", "dataloader_pin_memory"), "execution.device"),
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "parallelism_config"),
        "data parallelism (torchrun): token weights move and probe whole parameters, which sharding splits; LoRA makes large models fit",
    ),
    **dict.fromkeys(("ddp_backend", "ddp_find_unused_parameters", "average_tokens_across_devices"), "execution.device"),
    **dict.fromkeys(
        ("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end"),
        "the generate and score stages for evaluation",
    ),
    "assistant_only_loss": "sft.completion_only_loss",
    "label_smoothing_factor": "sft.method",
    "loss_type": "sft.method",
    "lr_scheduler_type": "sft.schedule",
    "num_train_epochs": "sft.epochs",
    "output_dir": "home",
    "push_to_hub": "the checkpoint folder and your own upload",
    "report_to": "sft.trackers",
    "disable_tqdm": "the pipeline's own progress line",
    "use_liger_kernel": "no kernel option: it replaces the head that token weights need",
}
"""Options of SFTConfig that the pipeline sets itself -> where a user sets them."""


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check `sft.trainer` against `trl.SFTConfig`; raises StageError for the first option that cannot be used."""
    check_options(options, SFTConfig, OWNED_OPTIONS)


def run(ctx: Context[SftSettings]) -> Result:
    """Fine-tune `inputs["model"]` on `inputs["data"]`, save the checkpoint to `model/`, and prove it."""
    settings = ctx.settings
    prepare_torch(ctx)
    check_trainer_options(settings.trainer)
    rows = read_demonstrations(ctx.inputs["data"] / "sft.jsonl")
    base = ctx.inputs["model"] / "model"
    frozen_dtype = settings.dtype if settings.lora else "float32"  # what is trained stays float32
    model, tokenizer = load_model_and_tokenizer(base, frozen_dtype)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and settings.max_length > positions:
        raise StageError(
            f"sft.max_length is {settings.max_length}, but the model has {positions} positions",
            f"Set max_length to {positions} or less.",
        )
    arguments = trainer_config(ctx)
    if arguments.n_gpu > 1:
        raise StageError(
            f"one process sees {arguments.n_gpu} GPUs: torch's DataParallel would split the batch behind the method's back",
            "Set CUDA_VISIBLE_DEVICES to one of them, or start one process for each with torchrun.",
        )
    callback = StageCallback(ctx, "sft", shown=("loss",))
    trainer = ReweightingTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]),
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
        callbacks=[callback, *tensorboard(ctx)],
        method=make_method(settings.method, tokenizer, ctx.seed),
        note=ctx.note,
    )
    kept = len(trainer.train_dataset)
    _report_truncation(ctx, trainer.train_dataset, total=len(rows), stops=tokenizer.eos_token_id)
    train(ctx, trainer)
    trained = whole_model(ctx, trainer)
    if not ctx.main:
        return Result({})
    write_json(ctx.record / "token_weights.json", trainer.snapshots.taken)
    merge_difference = None
    if settings.lora:
        trained, merge_difference = merge_adapter(
            trained, trainer.train_dataset[0]["input_ids"], ctx.output / "adapter"
        )
    save_checkpoint(trained, tokenizer, ctx.output / "model", settings.dtype)
    proof = training_proof(
        trained,
        tokenizer,
        before=base,
        after=ctx.output / "model",
        dtype=settings.dtype,
        state=trainer.state,
        planned_steps=planned_steps(settings, kept),
    )
    if merge_difference is not None:
        proof["merge_difference"] = merge_difference
    metrics = {
        "rows": kept,
        "rows_left_out": len(rows) - kept,
        "tokens_per_second": round(callback.tokens_per_second, 1),
    }
    return Result(proof, {**metrics, "loss_last": proof["loss_last"]})


def read_demonstrations(path: Path) -> list[dict[str, Any]]:
    """The rows of an `sft.jsonl`: `prompt` and `completion`, each a list of messages with `role` and `content`."""
    rows = read_rows(path) if path.is_file() else []
    if not rows:
        raise StageError(f"{path}: no demonstrations to train on", "Check `data.sft` in the config.")
    for number, row in enumerate(rows, start=1):
        for field in ("prompt", "completion"):
            messages = row.get(field)
            good = isinstance(messages, list) and messages and all(_is_message(message) for message in messages)
            if not good:
                raise StageError(
                    f"{path}:{number}: {field!r} must be a list of messages with role and content",
                    "Check the columns in `data.sft`.",
                )
    return rows


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(field), str) for field in ("role", "content"))


def trainer_config(ctx: Context[SftSettings]) -> SFTConfig:
    """The SFTConfig of a run: everything that matters written out, then the user's further options."""
    settings = ctx.settings
    share, rest = divmod(settings.batch_size, int(os.environ.get("WORLD_SIZE", "1")))
    micro_batch = settings.micro_batch_size or share
    if rest or share % micro_batch:
        raise StageError(
            f"batch_size {settings.batch_size} does not split into {os.environ['WORLD_SIZE']} processes of micro-batches of {micro_batch}",
            "Choose sft.batch_size, sft.micro_batch_size and the number of processes so that they divide.",
        )
    options = {
        **shared_trainer_options(ctx, logging_steps=settings.logging_steps, checkpoint_steps=settings.checkpoint_steps),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": settings.warmup_steps,
        "optim": "adamw_torch",
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": settings.max_length,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": share // micro_batch,
        "num_train_epochs": settings.epochs if settings.epochs is not None else 1.0,
        "max_steps": settings.max_steps if settings.max_steps is not None else -1,
        "bf16": settings.dtype == "bfloat16",
        "fp16": False,
        "completion_only_loss": settings.completion_only_loss,
        "loss_type": "nll",
        "packing": settings.packing,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "truncation_mode": "keep_start",
        "shuffle_dataset": False,  # the sampler draws a fresh order each epoch
        **settings.trainer,
    }
    try:
        return SFTConfig(**options)
    except (ValueError, TypeError) as error:
        raise StageError(f"TRL refuses these options: {error}", "Check `sft.trainer` and `sft.dtype`.") from error


def planned_steps(settings: SftSettings, rows: int) -> int:
    """Optimizer steps that the settings ask for on this many rows; an epoch's last step may have fewer than
    `batch_size` rows."""
    if settings.max_steps is not None:
        return settings.max_steps
    assert settings.epochs is not None  # the settings hold exactly one of the two
    return math.ceil(settings.epochs * math.ceil(rows / settings.batch_size))


def _report_truncation(ctx: Context[SftSettings], dataset: Dataset, *, total: int, stops: int) -> None:
    limit = ctx.settings.max_length
    if len(dataset) == 0:
        raise StageError(
            f"all {total} rows lose their whole completion at sft.max_length {limit}", "Raise sft.max_length."
        )
    if len(dataset) < total:
        ctx.note(
            f"{total - len(dataset)} of {total} rows left out: their whole completion lies beyond max_length {limit}"
        )
    unended = [row for row in dataset if stops not in row["labels"]]
    cut = sum(len(row["input_ids"]) == limit for row in unended)
    if cut:
        ctx.note(f"{cut} of {total} completions are cut at max_length {limit}")
    if len(unended) > cut:
        raise StageError(
            f"{len(unended) - cut} completions are complete but hold no end-of-sequence token (id {stops}): the model would never stop",
            "The chat template must end the assistant's turn with the tokenizer's eos_token; set it with `sft.trainer: {eos_token: ...}`.",
        )
