"""TRL's GRPOTrainer with what a stage needs beside it: where a step's time goes, looks at dev problems, and adapters that resume.

What is trained, and on what, is TRL's own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from trl import GRPOTrainer

from stages.training import distributed
from stages.training.lora import merged_parameters

SAME_REWARD = 1e-6
"""Rewards that differ by less count as equal: float32's rounding of a sum of parts."""
PARTS = ("generate", "sync", "grade", "train")
"""Of a step's seconds: sampling, handing the weights to the sampler, rewards, and the rest: log-probabilities, loss, backward pass."""


def equal_groups(rewards: torch.Tensor, num_generations: int) -> list[int]:
    """Numbers of the groups whose completions all have the same reward.

    Args:
        rewards: reward of each completion, shape [groups * num_generations], a group's completions next to one another.
        num_generations: completions per group.
    """
    groups = rewards.view(-1, num_generations)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    return [group for group, width in enumerate(spread.tolist()) if width <= SAME_REWARD]


def whole_groups(needed: int, num_generations: int, processes: int) -> int:
    """The least number of groups, `needed` or more, whose completions the processes share evenly: all must sample equally often."""
    while needed * num_generations % processes:
        needed += 1
    return needed


class StageTrainer(GRPOTrainer):  # type: ignore[misc]
    """A GRPOTrainer that logs `time/PART` in seconds for each of `PARTS`, of this process, for each optimizer step."""

    control: Any  # the Trainer's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        super().__init__(*args, **kwargs)
        if self.use_vllm:
            synchronise = self.vllm_generation.sync_weights

            def timed() -> None:
                with self._clock("sync"):
                    synchronise()

            self.vllm_generation.sync_weights = timed
            if isinstance(self.model, PeftModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
                self.vllm_generation._iter_named_params = functools.partial(merged_parameters, self.model)

    @contextlib.contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        """Count the seconds of a part of a training step; what is clocked within it counts for the inner part alone."""
        training, started, others = self.model.training, time.perf_counter(), sum(self._seconds.values())
        yield
        if training:
            self._seconds[part] += time.perf_counter() - started - (sum(self._seconds.values()) - others)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self._step % self.current_gradient_accumulation_steps == 0:
            metrics = self._metrics["train"]
            self._seconds["train"] = metrics["step_time"][-1] - sum(self._seconds.values())
            for part in PARTS:
                metrics[f"time/{part}"].append(self._seconds[part])
            self._seconds = dict.fromkeys(PARTS, 0.0)
        return loss

    def _generate(self, prompts: list[Any]) -> Any:
        with self._clock("generate"):
            return super()._generate(prompts)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        with self._clock("grade"):
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._remembered(rewards)

    def _remembered(self, rewards: torch.Tensor) -> torch.Tensor:
        self._last_rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        # TRL's share is about the deviation that advantages are divided by: of the whole batch, where that is what scales them.
        equal = equal_groups(self._total(self._last_rewards), self.num_generations)
        self._metrics["train"]["frac_reward_zero_std"][-1] = len(equal) * self.num_generations / len(self._last_rewards)
        return batch

    def _total(self, rewards: torch.Tensor) -> torch.Tensor:
        return (rewards * self.reward_weights.to(rewards.device)).sum(dim=1)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample and grade the dev problems; the callback's `on_evaluate` makes the figure of it that a checkpoint is chosen by.

        TRL would cut them into batches of `per_device_eval_batch_size` and compute a loss on each: that size is bounded by the memory
        of the loss, which nobody looks at. Here they are sampled as many at a time as a rollout has completions.
        """
        metrics: dict[str, float] = {}
        training = self.model.training
        self.model.eval()
        try:
            for rows in self._dev_batches():
                prompts = [row["prompt"] for row in rows]
                _, ids, _, completions, *_ = self._generate(prompts)
                self._calculate_rewards(rows, prompts, completions, ids)
            self._pending_metrics.clear()
            self.log(metrics)
        finally:
            self.model.train(training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _dev_batches(self) -> Iterator[list[dict[str, Any]]]:
        """This process' rows of each batch. Where the last one cannot be shared evenly, problems of the beginning fill it up."""
        samples, problems = self.num_generations_eval, len(self.eval_dataset)
        size = max(1, self.args.generation_batch_size // samples)
        for start in range(0, problems, size):
            count = whole_groups(min(size, problems - start), samples, distributed.world_size())
            numbers = [number % problems for number in range(start, start + count)]
            rows = [dict(self.eval_dataset[number]) for number in numbers for _ in range(samples)]
            share = len(rows) // distributed.world_size()
            yield rows[distributed.rank() * share : (distributed.rank() + 1) * share]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load weights to go on with.

        Where SFT's adapter is trained on and `beta` is set, TRL keeps a copy of it as the adapter `ref`, and peft saves that into a
        folder of the checkpoint. The Trainer takes such folders for all there is and leaves out the trained adapter beside them.
        """
        saved = os.path.isfile(os.path.join(resume_from_checkpoint, SAFETENSORS_WEIGHTS_NAME))
        if saved and model is None and "ref" in getattr(self.model, "peft_config", {}):
            self.model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            self.model.set_adapter("default")
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
