"""TRL's GRPOTrainer with what the stage needs beside it: where a step's time goes, and looks at dev problems.

What is trained, and on what, is TRL's own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from stages.grpo.trl_internals import ZERO_VARIANCE, RolloutTrainer, Sampled
from stages.training import distributed

SAME_REWARD = 1e-6
"""Rewards that differ by less count as equal: float32's rounding of a sum of parts."""
PARTS = ("generate", "sync", "grade", "train")
"""Of a step's seconds: sampling, weights to the sampler, rewards, and the rest (log-probabilities, loss, backward)."""


def zero_variance_groups(rewards: torch.Tensor, num_generations: int) -> list[int]:
    """Numbers of the groups whose completions all have the same reward.

    Args:
        rewards: reward of each completion, shape [groups * num_generations], a group's completions side by side.
        num_generations: completions per group.
    """
    groups = rewards.view(-1, num_generations)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    return [group for group, width in enumerate(spread.tolist()) if width <= SAME_REWARD]


def whole_groups(needed: int, num_generations: int, processes: int) -> int:
    """The least number of groups, `needed` or more, whose completions the processes share evenly."""
    while needed * num_generations % processes:
        needed += 1
    return needed


class StageTrainer(RolloutTrainer):
    """A GRPOTrainer that logs `time/PART` in seconds for each of `PARTS`, of this process, for each optimizer step."""

    control: Any  # the Trainer's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        super().__init__(*args, **kwargs)

    @contextlib.contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        """Count the seconds of a part of a training step; what is clocked within counts for the inner part alone."""
        training, started, others = self.model.training, time.perf_counter(), sum(self._seconds.values())
        yield
        if training:
            self._seconds[part] += time.perf_counter() - started - (sum(self._seconds.values()) - others)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self.step_is_complete:
            self._seconds["train"] = self.step_values["step_time"][-1] - sum(self._seconds.values())
            for part in PARTS:
                self.step_values[f"time/{part}"].append(self._seconds[part])
            self._seconds = dict.fromkeys(PARTS, 0.0)
        return loss

    def sync_weights(self) -> None:
        with self._clock("sync"):
            super().sync_weights()

    def sample(self, prompts: list[Any]) -> Sampled:
        with self._clock("generate"):
            return super().sample(prompts)

    def grade(self, rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        with self._clock("grade"):
            self._graded = super().grade(rows, prompts, completions, completion_ids)
        return self._graded

    def rollout(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().rollout(rows)
        # TRL's share is of the deviation that divides advantages: with `scale_rewards: batch` that of the whole batch.
        self.step_values[ZERO_VARIANCE][-1] = self.zero_variance_share(self.total_reward(self._graded))
        return batch

    def total_reward(self, rewards: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the rewards by reward function."""
        return (rewards * self.reward_weights.to(rewards.device)).sum(dim=1)

    def zero_variance_share(self, rewards: torch.Tensor) -> float:
        """The share of completions that are in a group of equal rewards."""
        size: int = self.num_generations
        return len(zero_variance_groups(rewards, size)) * size / len(rewards)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample and grade the dev problems; the callback's `on_evaluate` makes of it what a checkpoint is chosen by.

        TRL would cut them into batches of `per_device_eval_batch_size` and compute a loss on each, which nobody looks
        at, and whose memory bounds that size. Here a batch has as many completions as a rollout.
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
