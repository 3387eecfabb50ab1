"""Curves of means are of the optimizer step, not of its micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.grpo.trl_internals.step_means import StepMeans
from tests.stages.grpo.given import steps
from tests.tiny import make_tiny_model

WHOLE: dict[str, Any] = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "steps_per_generation": 2}
RATIOS: dict[str, Any] = {"num_iterations": 2, "max_steps": 4, "epsilon": 0.001, "beta": 0.1, "learning_rate": 0.5}


@pytest.mark.parametrize(("by_sequence", "clipped"), [(False, (10 * 0.4 + 2 * 1.0) / 12), (True, (2 * 0.4 + 1.0) / 3)])
def test_a_micro_batch_counts_by_its_tokens_or_its_completions(by_sequence: bool, clipped: float) -> None:
    means = StepMeans(by_sequence=by_sequence)
    curves = {"entropy": [9.0, 3.0, 1.0], "clip_ratio/low_mean": [0.4, 1.0], "reward": [5.0], "kl": [7.0]}
    means.add(torch.ones(2, 5, dtype=torch.long))
    means.add(torch.tensor([[1, 1, 0]]))
    means.finish(curves)
    assert curves["entropy"] == pytest.approx([9.0, (10 * 3.0 + 2 * 1.0) / 12]), "the step before stays"
    assert curves["clip_ratio/low_mean"] == pytest.approx([clipped])
    assert (curves["reward"], curves["kl"]) == ([5.0], [7.0])
    means.add(torch.ones(1, 4))
    means.finish(curves)
    assert curves["entropy"][-1] == pytest.approx(32 / 12), "one micro-batch is the step"


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_curves_do_not_depend_on_the_cut(tmp_path: Path, level: str) -> None:
    make_tiny_model(tmp_path / "model")

    def last(**cut: Any) -> dict[str, float]:
        trainer = steps(tmp_path, loss_type="grpo", importance_sampling_level=level, **RATIOS, **cut)
        entry = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
        return {name: entry[name] for name in ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean")}

    whole = last(**WHOLE)
    assert min(whole.values()) > 0
    assert last(max_tokens=60) == pytest.approx(whole, rel=1e-6)
