"""The parts of a GRPO step as public methods, timed, and what TRL logs of it."""

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME

from stages.grpo.trl_internals.whole_step import WholeStepTrainer
from stages.training import distributed
from stages.training.library_internals import merged_parameters

ZERO_VARIANCE = "frac_reward_zero_std"
"""TRL's curve of the share of completions without an advantage, which StageTrainer corrects."""
SAME_REWARD = 1e-6
"""Rewards that differ by less count as equal: float32's rounding of a sum of parts."""
PARTS = ("generate", "sync", "grade", "train")
"""Of a step's seconds: sampling, weights to the sampler, rewards, and the rest (log-probabilities, loss, backward)."""


def zero_variance_groups(rewards: torch.Tensor, num_generations: int) -> list[int]:
    """Numbers of the groups of equal rewards; `rewards` is [groups * num_generations], a group's side by side."""
    groups = rewards.view(-1, num_generations)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    return [group for group, width in enumerate(spread.tolist()) if width <= SAME_REWARD]


def whole_groups(needed: int, num_generations: int, processes: int) -> int:
    """The least number of groups, `needed` or more, whose completions the processes share evenly."""
    while needed * num_generations % processes:
        needed += 1
    return needed


class Sampled(NamedTuple):
    """One process' completions as `GRPOTrainer._generate` returns them, in its order; lists have an entry for each."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    tool_mask: Any
    completions: list[Any]
    logprobs: list[list[float]] | None
    """The sampler's; None where it gives none."""
    extra_fields: dict[str, Any]
    images: Any
    tool_images: Any


class StageTrainer(WholeStepTrainer):
    """A GRPOTrainer with the parts of a step as public methods, whose seconds it logs as `time/PART` for each step."""

    control: Any
    _metrics: dict[str, dict[str, list[float]]]
    _pending_metrics: dict[str, list[float]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        super().__init__(*args, **kwargs)
        if self.use_vllm:
            self._sync_weights = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self.sync_weights
            if isinstance(self.model, PeftModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
                # TRL merges the adapter in place: see merged_parameters.
                self.vllm_generation._iter_named_params = functools.partial(merged_parameters, self.model)

    def _save_rng_state(self, output_dir: str) -> None:
        """Called by every process for a checkpoint, before the first one writes trainer_state.json, which marks it as
        complete: another node may still be writing its part."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        """Count the seconds of a part of a training step; what is clocked within counts for the inner part alone."""
        training, started, others = self.model.training, time.perf_counter(), sum(self._seconds.values())
        yield
        if training:
            self._seconds[part] += time.perf_counter() - started - (sum(self._seconds.values()) - others)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self._step % self.current_gradient_accumulation_steps == 0:  # an optimizer step, for which TRL logs its time
            self._seconds["train"] = self.step_values["step_time"][-1] - sum(self._seconds.values())
            for part in PARTS:
                self.step_values[f"time/{part}"].append(self._seconds[part])
            self._seconds = dict.fromkeys(PARTS, 0.0)
        return loss

    def rollout(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch to train on, from this process' rows of the data; TRL calls `sample`, then `grade`, once each."""
        batch: dict[str, Any] = super()._generate_and_score_completions(rows)
        # TRL's share is of the deviation that divides advantages: with `scale_rewards: batch` that of the whole batch.
        rewards = self.total_reward(self._graded)
        self.step_values[ZERO_VARIANCE][-1] = self.zero_variance_share(rewards)
        if self.model.training and self.multi_objective_aggregation == "sum_then_normalize":
            # A mean's rounding leaves up to 1e-4 of an advantage where all rewards are equal: of eight of 0.1, 7e-5.
            equal = torch.zeros(len(rewards) // self.num_generations, dtype=torch.bool)
            equal[zero_variance_groups(rewards, self.num_generations)] = True
            rows = equal.repeat_interleave(self.num_generations).tolist()
            own = torch.tensor(distributed.share(rows), device=batch["advantages"].device)
            batch["advantages"] = batch["advantages"].masked_fill(own, 0.0)
        return batch

    def sample(self, prompts: list[Any]) -> Sampled:
        """A completion of each of this process' prompts."""
        with self._clock("generate"):
            return Sampled(*super()._generate(prompts))

    def sync_weights(self) -> None:
        """Hand the trained weights to vLLM."""
        with self._clock("sync"):
            self._sync_weights()

    def grade(self, rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        """Rewards of all processes' completions, shape [completions, reward functions]."""
        with self._clock("grade"):
            self._graded: torch.Tensor = super()._calculate_rewards(rows, prompts, completions, completion_ids)
        return self._graded

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return self.rollout(inputs)

    def _generate(self, prompts: list[Any]) -> Sampled:
        return self.sample(prompts)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        return self.grade(inputs, prompts, completions, completion_ids_list)

    @property
    def step_values(self) -> dict[str, list[float]]:
        """What is logged in training since the last line of the log, by curve; TRL logs the mean of each."""
        return self._metrics["train"]

    @property
    def pending_values(self) -> dict[str, list[float]]:
        """What reward functions logged since the last rollout was scored; TRL logs the mean of each."""
        return self._pending_metrics

    def total_reward(self, rewards: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the rewards by reward function."""
        return (rewards * self.reward_weights.to(rewards.device)).sum(dim=1)

    def zero_variance_share(self, rewards: torch.Tensor) -> float:
        """The share of completions that are in a group of equal rewards."""
        size: int = self.num_generations
        return len(zero_variance_groups(rewards, size)) * size / len(rewards)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample and grade the dev problems, in batches of as many completions as a rollout has.

        TRL would compute a loss on each batch, which nobody looks at, and whose memory bounds the batch.
        """
        metrics: dict[str, float] = {}
        training = self.model.training
        self.model.eval()
        try:
            for rows in self._dev_batches():
                prompts = [row["prompt"] for row in rows]
                sampled = self.sample(prompts)
                self.grade(rows, prompts, sampled.completions, sampled.completion_ids)
            self.pending_values.clear()
            self.log(metrics)
        finally:
            self.model.train(training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _dev_batches(self) -> Iterator[list[dict[str, Any]]]:
        """This process' rows of each batch; where the last cannot be shared evenly, the first problems fill it up."""
        samples, problems = self.num_generations_eval, len(self.eval_dataset)
        size = max(1, self.args.generation_batch_size // samples)
        for start in range(0, problems, size):
            count = whole_groups(min(size, problems - start), samples, distributed.world_size())
            rows = [self.eval_dataset[number % problems] for number in range(start, start + count)]
            yield distributed.share([dict(row) for row in rows for _ in range(samples)])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the trained weights of a checkpoint, where SFT's adapter is trained on and `beta` is set, too.

        TRL then keeps a copy of the adapter under the name `ref`, which peft saves into a folder of the checkpoint.
        transformers takes such folders for all there is, and leaves out the trained adapter beside them.
        """
        saved = os.path.isfile(os.path.join(resume_from_checkpoint, SAFETENSORS_WEIGHTS_NAME))
        if saved and model is None and "ref" in getattr(self.model, "peft_config", {}):
            self.model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            self.model.set_adapter("default")
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
