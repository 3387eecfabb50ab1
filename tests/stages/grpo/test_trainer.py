"""What the stage's trainer adds to TRL's: where seconds go, the share of zero-variance groups, dev problems."""

from __future__ import annotations

import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from stages.grpo.trl_internals import PARTS, Sampled, StageTrainer
from stages.training import distributed


class Bare(StageTrainer):
    """The trainer without a model, an engine or data."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self.model = SimpleNamespace(training=True, eval=lambda: self._mode(False), train=self._mode)
        self.num_generations, self.reward_weights = 2, torch.tensor([1.0, 0.5])
        self.multi_objective_aggregation = "sum_then_normalize"
        self.use_vllm = self.vllm_importance_sampling_correction = False
        self.num_iterations = self.current_gradient_accumulation_steps = 1
        self.args = SimpleNamespace(steps_per_generation=1)
        self._metrics: Any = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._pending_metrics: Any = {}
        self.logged: list[dict[str, float]] = []

    def _mode(self, training: bool) -> None:
        self.model.training = training

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.logged.append(logs)


def test_what_is_timed_within_a_part_counts_for_the_inner_one_alone() -> None:
    trainer = Bare()
    with trainer._clock("generate"):
        with trainer._clock("sync"):
            time.sleep(0.05)
        time.sleep(0.01)
    trainer.model.training = False
    with trainer._clock("grade"):
        time.sleep(0.01)
    assert trainer._seconds["sync"] >= 0.05
    assert 0.01 <= trainer._seconds["generate"] < 0.05
    assert trainer._seconds["grade"] == 0  # a look at dev problems is no part of a step


def test_the_share_of_zero_variance_groups_is_of_groups_whatever_scales_the_advantages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With `scale_rewards: batch` TRL logs whether the whole batch has the same reward."""
    trainer = Bare()

    def scored(self: Any, inputs: Any) -> dict[str, Any]:
        self._graded = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
        self._metrics["train"]["frac_reward_zero_std"].append(0.0)
        return {"advantages": torch.ones(6)}

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", scored)
    trainer._generate_and_score_completions([])
    assert trainer._metrics["train"]["frac_reward_zero_std"] == [pytest.approx(2 / 3)]


@pytest.mark.parametrize("count", [1, 2])
def test_dev_problems_are_sampled_as_many_at_a_time_as_a_rollout_has(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five problems, three samples each, rollouts of 8 completions: batches of 2, 2 and 1 problems; two processes share
    the last by taking the first problem again."""
    sampled: list[list[list[int]]] = []
    for index in range(count):
        monkeypatch.setattr(distributed, "world_size", lambda: count)
        monkeypatch.setattr(distributed, "rank", lambda index=index: index)
        trainer = Bare()
        trainer.args = SimpleNamespace(generation_batch_size=8, per_device_eval_batch_size=1)
        trainer.num_generations_eval = 3
        trainer.eval_dataset = [{"prompt": f"p{number}", "problem": number} for number in range(5)]
        trainer.state = trainer.control = None
        seen: list[list[int]] = []
        trainer.callback_handler = SimpleNamespace(
            on_evaluate=lambda args, state, control, metrics: metrics.update(eval_share=0.5)
        )

        def generate(self: Any, prompts: list[Any]) -> Any:
            assert not self.model.training
            return Sampled([], [[1]] * len(prompts), None, prompts, None, {}, None, [])

        def grade(self: Any, rows: Any, *rest: Any, seen: Any = seen) -> torch.Tensor:
            seen.append([row["problem"] for row in rows])
            return torch.zeros(len(rows), 2)

        monkeypatch.setattr(GRPOTrainer, "_generate", generate)
        monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", grade)
        assert trainer.evaluate() == {"eval_share": 0.5}
        assert trainer.model.training
        sampled.append(seen)
    together = [[problem for part in parts for problem in part] for parts in zip(*sampled, strict=True)]
    assert together == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3], [4, 4, 4] if count == 1 else [4, 4, 4, 0, 0, 0]]
    assert {len({len(part) for part in parts}) for parts in zip(*sampled, strict=True)} == {1}
