"""TRL's SFTTrainer with token weights, through the hooks that the Trainer calls anyway.

One optimizer step of `transformers.Trainer` calls, in this order: `get_batch_samples` (once, with all micro-batches), then for each
of them `training_step` -> `compute_loss` -> backward, and after the last one clipping and the optimizer. So extra evaluations run in
the first, weights are applied in `compute_loss`, and the factor of the whole step at the end of the last `training_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from trl import SFTTrainer

from stages.harness.context import StageError
from stages.harness.json_files import read_json, write_json
from stages.sft.reweighting.base import Batch, Method, Window
from stages.sft.reweighting.diagnostics import Concentration
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.snapshots import Snapshots
from stages.training import distributed

PREPARED = "reweighting"
"""Extra entry of a micro-batch: what the method prepared for it."""
METHOD_STATE = "reweighting.json"
METHOD_TENSORS = "reweighting.safetensors"


class ReweightingTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose token losses are weighted by `method`; with uniform weighting it trains bit for bit as SFTTrainer does."""

    def __init__(self, *args: Any, method: Method, note: Callable[[str], None] = print, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise StageError(
                "token weights move and probe whole parameters, which FSDP and DeepSpeed split between processes",
                "Use plain data parallelism (torchrun without a sharding config), with LoRA where the model is large.",
            )
        self.method = method
        self.note = note
        self.snapshots = Snapshots(self.train_dataset, self.processing_class)
        self._evaluator: ModelEvaluator | None = None
        self._window_tokens = 1.0
        self._loss_sums = {"uniform_loss": 0.0, "weighted_loss": 0.0}
        self._concentration = Concentration()

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            masks = [batch["labels"][:, 1:] != -100 for batch in batches]
            own = [float(sum(mask.sum() for mask in masks)), float(sum(mask.any(-1).sum() for mask in masks))]
            tokens, trajectories = self.evaluator.sum_over_ranks(own)
            window = Window(
                batches=batches, step=self.state.global_step, tokens=int(tokens), trajectories=int(trajectories)
            )
            self._window_tokens = max(window.tokens, 1)
            self._loss_sums = dict.fromkeys(self._loss_sums, 0.0)
            self._concentration = Concentration()
            for batch, prepared in zip(batches, self.method.prepare(window, self.evaluator), strict=True):
                batch[PREPARED] = prepared
            if self.snapshots.due(window.step, self.state.max_steps):
                self.snapshots.take(window.step, self.method, self.evaluator)
        return batches, items

    @property
    def evaluator(self) -> ModelEvaluator:
        """Evaluations of the model beside its training forward."""
        if self._evaluator is None:
            self._evaluator = ModelEvaluator(
                self.model,
                self.train_dataset,
                self.data_collator,
                self._prepare_inputs,
                lambda: self.optimizer,
                batch_size=self.args.per_device_train_batch_size
                * self.args.gradient_accumulation_steps
                * distributed.world_size(),
                micro_batch_size=self.args.per_device_train_batch_size,
                bfloat16=self.args.bf16,
                seed=self.args.seed,
            )
        return self._evaluator

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        prepared = inputs.pop(PREPARED)

        def weigh(module: Any, arguments: Any, output: Any) -> Any:
            losses = -output.log_probs.detach().float()
            factors = self.method.weigh(losses, output.label_mask, prepared)
            weighted = losses if factors is None else losses * factors
            self._loss_sums["uniform_loss"] += losses.double().sum().item()
            self._loss_sums["weighted_loss"] += weighted.double().sum().item()
            if factors is not None:
                self._concentration.add(factors, output.label_mask)
                output.log_probs = output.log_probs * factors.to(output.log_probs.dtype)
            return output

        hook = model.register_forward_hook(weigh)
        try:  # TRL's own loss then sums and normalises the weighted log-probabilities
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            hook.remove()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:  # the window's last micro-batch: gradients are complete and not yet clipped
            outcome = self.method.finish(self.evaluator)
            if outcome.scale != 1.0:
                for parameter in self.model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(outcome.scale)
            sums = self.evaluator.sum_over_ranks(list(self._loss_sums.values()))
            losses = {name: value / self._window_tokens for name, value in zip(self._loss_sums, sums, strict=True)}
            for name, value in {**losses, **self._concentration.metrics(self.evaluator), **outcome.metrics}.items():
                self._metrics["train"][name].append(value)
            for line in outcome.notes:
                self.note(line)
        return loss

    # The method's state travels with the optimizer's: both are loaded before the first window of a resumed run is drawn.
    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            tensors = {str(index): tensor.contiguous() for index, tensor in enumerate(self.method.tensors())}
            save_file(tensors, Path(output_dir) / METHOD_TENSORS)
            state = {"method": self.method.state(), "snapshots": self.snapshots.taken, "tensors": len(tensors)}
            write_json(Path(output_dir) / METHOD_STATE, state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            saved = read_json(Path(checkpoint) / METHOD_STATE)
            self.method.restore(saved["method"])
            self.snapshots.taken = saved["snapshots"]
            device = next(self.model.parameters()).device
            tensors = load_file(Path(checkpoint) / METHOD_TENSORS, device=str(device))
            self.method.restore_tensors([tensors[str(index)] for index in range(saved["tensors"])])
