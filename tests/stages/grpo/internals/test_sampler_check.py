"""The sampler is compared with the trainer in the training forward itself, where a rollout serves one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from stages.grpo.trl_internals import LOGPROB_DIFFERENCES, whole_step
from stages.grpo.trl_internals.sampler_check import DIFFERENCE, RATIO
from tests.stages.grpo.given import Given, steps
from tests.tiny import make_tiny_model

CURVES = [f"{DIFFERENCE}/{name}" for name in ("mean", "max")] + [f"{RATIO}/{name}" for name in ("min", "mean", "max")]
ONE_STEP: dict[str, Any] = {"steps_per_generation": 4, "max_steps": 1, "sampler": True}
CASES: dict[str, dict[str, Any]] = {
    "masked by sequence": {"vllm_importance_sampling_mode": "sequence_mask", "loss_type": "grpo"},
    "cut by sequence": {"vllm_importance_sampling_mode": "sequence_truncate", "importance_sampling_level": "sequence"},
    "masked by token": {"vllm_importance_sampling_mode": "token_mask", "vllm_importance_sampling_clip_min": 0.8},
    "cut by token, vespo": {"vllm_importance_sampling_mode": "token_truncate", "loss_type": "vespo"},
    "with a reference": {"beta": 0.1, "loss_type": "bnpo"},
    "off-policy sequences left out": {"off_policy_mask_threshold": 0.05},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("given")
    make_tiny_model(here / "model")
    return here


def curves_of(trainer: Given) -> dict[str, float]:
    [logged] = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {name: logged[name] for name in CURVES}


@pytest.mark.parametrize("name", CASES)
def test_the_step_and_its_curves_are_those_of_a_pass_of_its_own(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = {"vllm_importance_sampling_clip_max": 1.2, **CASES[name]}
    short = steps(folder, all_rows=True, **ONE_STEP, **bounded)
    with monkeypatch.context() as patch:
        patch.setattr(whole_step, "has_dropout", lambda model: True)
        full = steps(folder, all_rows=True, **ONE_STEP, **bounded)
    assert (short.rows, full.rows) == (16, 16)
    assert (short.rows_without_gradient, full.rows_without_gradient) == (0, 16)  # of the trained model
    [one], [other] = short.seen.steps, full.seen.steps
    assert other.norm() > 1e-6
    assert (one - other).norm() <= 1e-6 * other.norm()
    assert curves_of(short) == pytest.approx(curves_of(full), rel=1e-5)
    assert curves_of(full)[f"{RATIO}/max"] <= 1.2 + 1e-6


@pytest.mark.parametrize("equal", [(0, 2), tuple(range(8))])
def test_the_sampler_is_checked_where_few_completions_are_trained_on(folder: Path, equal: tuple[int, ...]) -> None:
    trainer = steps(folder, equal=equal, **ONE_STEP)
    assert (trainer.rows, trainer.rows_without_gradient) == (8 if len(equal) == 2 else 4, 0)
    differences = [curves_of(trainer)[curve] for curve in LOGPROB_DIFFERENCES.values()]
    assert all(difference > 0.01 for difference in differences)  # of a sampler that is wrong, as the one here


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_generation": 8, "max_steps": 2},
        {"steps_per_generation": 4, "num_iterations": 2, "max_steps": 2},
        {"steps_per_generation": 4, "peft_config": LoraConfig(r=2, lora_dropout=0.1, task_type="CAUSAL_LM")},
    ],
    ids=["two steps", "two iterations", "dropout"],
)
def test_a_pass_of_its_own_is_made_where_the_training_forward_would_differ(
    folder: Path, options: dict[str, Any]
) -> None:
    trainer = steps(folder, **{"max_steps": 1, **options, "sampler": True})
    assert trainer.rows_without_gradient == 4 * options["steps_per_generation"]
    assert trainer.state.log_history[0][f"{DIFFERENCE}/mean"] > 0.01
