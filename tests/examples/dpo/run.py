"""What the DPO stage does: TRL's trainer between the set-up, the loop and the proof that all training stages share."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from evaluation.records import read_rows
from stages.harness.context import Context, Result
from stages.training.checkpoint import load_model_and_tokenizer, make_saveable, save_checkpoint
from stages.training.loop import StageCallback, train
from stages.training.options import shared_trainer_options
from stages.training.proof import training_proof
from stages.training.setup import prepare_torch
from tests.examples.dpo.settings import DpoSettings


def run(ctx: Context[DpoSettings]) -> Result:
    """Train `inputs["model"]` on the pairs of `settings.file` and save the checkpoint to `model/`."""
    settings = ctx.settings
    prepare_torch(ctx)
    pairs = [row for _, row in read_rows(Path(settings.file).expanduser())]
    before, after = ctx.inputs["model"] / "model", ctx.output / "model"
    model, tokenizer = load_model_and_tokenizer(before, "float32")
    make_saveable(ctx, model, tokenizer)
    micro_batch = settings.micro_batch_size or settings.batch_size
    arguments = DPOConfig(
        **shared_trainer_options(ctx, logging_steps=1, checkpoint_steps=settings.checkpoint_steps),
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=settings.batch_size // micro_batch,
        max_steps=settings.max_steps,
        max_length=settings.max_length,
        bf16=settings.dtype == "bfloat16",
    )
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        callbacks=[StageCallback(ctx, "dpo", shown=("loss", "rewards/accuracies"))],
    )
    train(ctx, trainer)
    trained = trainer.accelerator.unwrap_model(trainer.model)
    save_checkpoint(trained, tokenizer, after, settings.dtype)
    proof = training_proof(
        trained,
        tokenizer,
        before=before,
        after=after,
        dtype=settings.dtype,
        state=trainer.state,
        planned_steps=settings.max_steps,
    )
    return Result(proof, {"pairs": len(pairs), "loss_last": proof["loss_last"]})
