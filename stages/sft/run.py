"""The SFT stage: demonstrations and a model in, a fine-tuned checkpoint and its training curve out."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig

from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import write_json
from stages.sft.encoding import encoded, read_demonstrations, template_origin
from stages.sft.reweighting import make_method
from stages.sft.row_values import WEIGHT
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer
from stages.training.checkpoint import load_model_and_tokenizer, make_saveable, save_checkpoint, whole_model
from stages.training.loop import StageCallback, tensorboard, train
from stages.training.lora import lora_config, merge_adapter
from stages.training.options import check_options, shared_trainer_options
from stages.training.proof import training_proof
from stages.training.setup import prepare_torch

SAME_NAMES = (
    *("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("max_length", "gradient_checkpointing", "completion_only_loss", "logging_steps"),
)
"""Settings that are options of SFTConfig under the same name."""
OWNERS = {
    **{f"sft.{name}": name for name in SAME_NAMES},
    "sft.packing": "packing packing_strategy padding_free eval_packing",
    "sft.dtype": "bf16 fp16 model_init_kwargs bf16_full_eval fp16_full_eval",
    "sft.micro_batch_size": "per_device_train_batch_size gradient_accumulation_steps auto_find_batch_size",
    "sft.checkpoint_steps": "save_steps save_strategy save_total_limit save_only_model",
    "sft.logging_steps": "logging_steps logging_strategy logging_first_step logging_nan_inf_filter",
    "sft.completion_only_loss": "completion_only_loss assistant_only_loss",
    "sft.method": "label_smoothing_factor loss_type",
    "sft.schedule": "lr_scheduler_type",
    "sft.epochs": "num_train_epochs",
    "sft.max_steps": "max_steps",
    "sft.trackers": "report_to",
    "seed": "seed data_seed full_determinism",
    "home": "output_dir",
    "execution.device": "use_cpu local_rank dataloader_pin_memory ddp_backend ddp_find_unused_parameters "
    "average_tokens_across_devices",
    "execution.launch.sft, with configs/accelerate/fsdp2.yaml": "deepspeed fsdp fsdp_config parallelism_config",
    "the generate and score stages for evaluation": "eval_strategy eval_steps eval_on_start load_best_model_at_end",
    "the checkpoint folder and your own upload": "push_to_hub",
    "the pipeline's own progress line": "disable_tqdm",
    "no kernel option: it replaces the head that token weights need": "use_liger_kernel",
}
OWNED_OPTIONS = {name: owner for owner, names in OWNERS.items() for name in names.split()}
"""Options of SFTConfig that the pipeline sets itself -> where a user sets them."""


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check `sft.trainer` against `trl.SFTConfig`, in a process that trains nothing: making one sets up devices.

    Raises:
        StageError: for the first option that cannot be used, or for what SFTConfig itself says of their values.
    """
    check_options(options, SFTConfig, OWNED_OPTIONS)
    _make_config({"output_dir": ".", "use_cpu": True, "bf16": False, "report_to": "none", **options})


def _make_config(options: Mapping[str, Any]) -> SFTConfig:
    try:
        return SFTConfig(**options)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise StageError(f"TRL refuses these options: {error}", "Check `sft.trainer` and `sft.dtype`.") from error


def run(ctx: Context[SftSettings]) -> Result:
    """Fine-tune `inputs["model"]` on `inputs["data"]`, save the checkpoint to `model/`, and prove it."""
    settings = ctx.settings
    prepare_torch(ctx)
    check_options(settings.trainer, SFTConfig, OWNED_OPTIONS)
    rows = read_demonstrations(ctx.inputs["data"] / "sft.jsonl")
    base = ctx.inputs["model"] / "model"
    frozen_dtype = settings.dtype if settings.lora else "float32"  # what is trained stays float32
    model, tokenizer = load_model_and_tokenizer(base, frozen_dtype, settings.template_date)
    left_out = make_saveable(ctx, model, tokenizer)
    _check_length(settings.max_length, model)
    callback = StageCallback(ctx, "sft", shown=("loss",))
    trainer = make_trainer(ctx, model, tokenizer, rows, [callback, *tensorboard(ctx)])
    dataset = trainer.train_dataset
    _report_truncation(ctx, dataset, total=len(rows), stops=tokenizer.eos_token_id)
    _report_weights(ctx, dataset)
    steps = planned_steps(settings, len(dataset))
    if settings.warmup_steps >= steps:
        warming = f"sft.warmup_steps: {settings.warmup_steps} leave nothing of {steps} steps"
        ctx.note(f"{warming}: the learning rate stays below {settings.learning_rate:g}")
    train(ctx, trainer)
    trained = whole_model(ctx, trainer, base, frozen_dtype)
    if not ctx.main:
        return Result({})
    write_json(ctx.record / "token_weights.json", trainer.snapshots.taken)
    merged: dict[str, float] = {}
    if settings.lora:
        trained, merged["merge_difference"] = merge_adapter(trained, dataset[0]["input_ids"], ctx.output / "adapter")
    saved = ctx.output / "model"
    save_checkpoint(trained, tokenizer, saved, settings.dtype)
    proof = training_proof(
        trained, tokenizer, before=base, after=saved, dtype=settings.dtype, state=trainer.state, planned_steps=steps
    )
    metrics = {
        "rows": len(dataset),
        "rows_left_out": len(rows) - len(dataset),
        "tokens_per_second": round(callback.tokens_per_second, 1),
        "loss_last": proof["loss_last"],
    }
    return Result({**proof, **merged, **({"generation_config_left_out": left_out} if left_out else {})}, metrics)


def make_trainer(
    ctx: Context[SftSettings], model: Any, tokenizer: Any, rows: list[dict[str, Any]], callbacks: Sequence[Any] = ()
) -> ReweightingTrainer:
    """The trainer of a run, with its rows tokenised (`trainer.train_dataset`).

    Args:
        model: of `inputs["model"]`, and its `tokenizer`.
        rows: as `read_demonstrations` gives them.
    """
    settings = ctx.settings
    template = template_origin(ctx.inputs["model"] / "model", settings.trainer)
    return ReweightingTrainer(
        model=model,
        args=trainer_config(ctx),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]),
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
        callbacks=list(callbacks),
        method=make_method(settings.method, tokenizer, ctx.seed, ctx.code_digests),
        encode=lambda tokenizer: encoded(rows, tokenizer, settings, template, ctx.note, ctx.details.get("asked_with")),
        note=ctx.note,
        max_tokens=settings.max_tokens_per_micro_batch,
        packing=settings.packing,
    )


def _check_length(max_length: int, model: Any) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise StageError(
            f"sft.max_length is {max_length}, but the model has {positions} positions",
            f"Set max_length to {positions} or less.",
        )


def trainer_config(ctx: Context[SftSettings]) -> SFTConfig:
    """The SFTConfig of a run: everything that matters written out, then the user's further options."""
    settings = ctx.settings
    share, rest = divmod(settings.batch_size, int(os.environ.get("WORLD_SIZE", "1")))
    micro_batch = 1 if settings.max_tokens_per_micro_batch else settings.micro_batch_size or share
    if rest or share % micro_batch:
        raise StageError(
            f"batch_size {settings.batch_size} does not split into {os.environ['WORLD_SIZE']} processes of "
            f"micro-batches of {micro_batch}",
            "Choose sft.batch_size, sft.micro_batch_size and the number of processes so that they divide.",
        )
    options = {
        **shared_trainer_options(ctx, logging_steps=settings.logging_steps, checkpoint_steps=settings.checkpoint_steps),
        **{name: getattr(settings, name) for name in SAME_NAMES},
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "optim": "adamw_torch_fused",
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": share // micro_batch,
        "num_train_epochs": settings.epochs if settings.epochs is not None else 1.0,
        "max_steps": settings.max_steps if settings.max_steps is not None else -1,
        "bf16": settings.dtype == "bfloat16",
        "fp16": False,
        "loss_type": "nll",
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "truncation_mode": "keep_start",
        "shuffle_dataset": False,  # the sampler draws a fresh order each epoch
        **settings.trainer,
    }
    config = _make_config(options)
    if config.n_gpu > 1:
        raise StageError(
            f"one process sees {config.n_gpu} GPUs: torch's DataParallel would split the batch behind the method's "
            "back",
            "Set CUDA_VISIBLE_DEVICES to one of them, or start one process for each with torchrun.",
        )
    return config


def planned_steps(settings: SftSettings, rows: int) -> int:
    """Optimizer steps that the settings ask for on this many rows; an epoch's last step may have fewer than
    `batch_size` rows."""
    if settings.max_steps is not None:
        return settings.max_steps
    assert settings.epochs is not None  # the settings hold exactly one of the two
    return math.ceil(settings.epochs * math.ceil(rows / settings.batch_size))


def _report_truncation(ctx: Context[SftSettings], dataset: Dataset, *, total: int, stops: int) -> None:
    limit, rows = ctx.settings.max_length, len(dataset)
    if rows == 0:
        raise StageError(
            f"all {total} rows lose their whole completion at sft.max_length {limit}", "Raise sft.max_length."
        )
    if rows < total:
        ctx.note(f"{total - rows} of {total} rows left out: their whole completion lies beyond max_length {limit}")
    unended = [row for row in dataset if stops not in row["labels"]]
    cut = sum(len(row["input_ids"]) == limit for row in unended)
    if cut:
        ctx.note(f"{cut} of {total} completions are cut at max_length {limit}")
    if len(unended) > cut:
        raise StageError(
            f"{len(unended) - cut} completions are complete but hold no end-of-sequence token (id {stops}): the model "
            "would never stop",
            "The chat template must end the assistant's turn with the tokenizer's eos_token; set it with "
            "`sft.trainer: {eos_token: ...}`.",
        )


def _report_weights(ctx: Context[SftSettings], dataset: Dataset) -> None:
    if WEIGHT not in dataset.column_names:
        return
    weights = dataset[WEIGHT][:]
    if not any(weights):
        fix = "Check `columns.weight` in `data.sft`."
        raise StageError(f"all {len(weights)} rows have the weight 0: nothing would be learnt", fix)
    mean = sum(weights) / len(weights)
    ctx.note(
        f"rows are weighted, from {min(weights):g} to {max(weights):g}, {mean:g} on average; the loss is divided by "
        "the number of tokens, whatever they weigh"
    )
