"""Completions that move no weight are left out of a step, which stays what it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stages.grpo.given import COMPLETIONS, steps
from tests.stages.grpo.runs import TORCHRUN
from tests.tiny import make_tiny_model, stage_environment

LOSSES: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name} for name in ("dapo", "grpo", "bnpo", "dr_grpo", "sapo", "vespo")},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "reused, scaled by the batch": {"num_iterations": 2, "max_steps": 4, "scale_rewards": "batch"},
    "cut completions left out": {"mask_truncated_completions": True, "loss_type": "bnpo"},
}
NOT_EXACT: dict[str, dict[str, Any]] = {
    "divergence": {"beta": 0.1},
    "bonus": {"entropy_coef": 0.1},
    "quantile": {"top_entropy_quantile": 0.5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("given")
    make_tiny_model(here / "model")
    return here


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).norm() <= 1e-6 * one.norm())


@pytest.mark.parametrize("name", LOSSES)
def test_groups_of_equal_rewards_are_left_out_of_every_loss(folder: Path, name: str) -> None:
    whole, part = (steps(folder, all_rows=all_rows, **LOSSES[name]) for all_rows in (True, False))
    assert whole.rows == len(COMPLETIONS) * LOSSES[name].get("num_iterations", 1)
    assert part.rows <= 0.5 * whole.rows
    assert part.positions < 0.6 * whole.positions
    assert all(step.norm() > 1e-6 for step in whole.seen.steps)
    assert len(part.seen.steps) == len(whole.seen.steps)
    assert all(map(same, whole.seen.steps, part.seen.steps))


@pytest.mark.parametrize("name", NOT_EXACT)
def test_all_go_through_the_model_where_they_move_it_otherwise(folder: Path, name: str) -> None:
    assert steps(folder, **NOT_EXACT[name]).rows == len(COMPLETIONS)


def test_a_step_without_any_advantage_has_a_gradient_of_zero(folder: Path) -> None:
    trainer = steps(folder, equal=tuple(range(8)))
    assert (trainer.rows, trainer.passes) == (2, 2)
    assert all(not step.any() for step in trainer.seen.steps)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2]


BUDGETS: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name} for name in ("dapo", "grpo", "bnpo", "dr_grpo")},
    "bonus": {"loss_type": "grpo", "entropy_coef": 0.3},
    "bonus on the quantile": {"loss_type": "sapo", "entropy_coef": 0.3, "top_entropy_quantile": 0.4},
    "divergence from the sampler": {"loss_type": "luspo", "importance_sampling_level": "sequence", "sampler": True},
}
"""Cases of completions that go through the model in micro-batches of different sizes."""


@pytest.mark.parametrize("name", BUDGETS)
def test_a_budget_of_tokens_changes_no_step(folder: Path, name: str) -> None:
    whole = steps(folder, all_rows=True, **BUDGETS[name])
    within = steps(folder, max_tokens=60, **BUDGETS[name])
    assert 0 < within.largest <= 60 < whole.largest
    assert all(map(same, whole.seen.steps, within.seen.steps))


@pytest.mark.slow
def test_two_processes_take_the_same_step_where_one_has_nothing_left(folder: Path) -> None:
    """The last four groups are the second process' own; it fills up with others, to gather metrics of equally many."""
    equal = (1, 4, 5, 6, 7)
    alone = steps(folder, equal=equal, all_rows=True, max_steps=1, gradient_accumulation_steps=8)
    options = {"equal": equal, "max_steps": 1, "gradient_accumulation_steps": 16, "max_tokens": 60}
    command = [sys.executable, "-m", *TORCHRUN, "tests.stages.grpo.given", str(folder), json.dumps(options)]
    done = subprocess.run(command, env=stage_environment(), text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for found in [torch.load(folder / f"{rank}.pt") for rank in range(2)]:
        assert found["rows"] == 12
        assert same(alone.seen.steps[0], found["gradients"][0])
