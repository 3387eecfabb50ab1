"""Options of TRL's config: each setting reaches it, and what a user adds under `trainer` is checked by TRL itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.grpo.config import OWNED_OPTIONS, PINNED, trainer_config
from stages.grpo.run import check_trainer_options
from stages.grpo.settings import GrpoSettings
from stages.harness.context import StageError
from tests.stages.grpo.runs import BRIEF
from tests.tiny import open_stage, write_spec


def refusal(**options: Any) -> StageError:
    with pytest.raises(StageError) as error:
        check_trainer_options(options)
    return error.value


def test_what_cannot_be_used_is_refused_with_what_to_do() -> None:
    assert "Did you mean vespo_k_pos?" in refusal(vespo_k_po=0.5).fix
    assert "grpo.learning_rate" in refusal(learning_rate=1.0).fix
    assert "does not fit" in refusal(vespo_k_pos="much").message
    assert "draws from another distribution" in refusal(min_p=0.1).fix
    assert "nosuch is not a valid OptimizerNames" in refusal(optim="nosuch").message
    check_trainer_options({"optim": "sgd", "vespo_k_pos": 1.0})


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="the package is here")
def test_a_package_that_an_option_needs_is_missed_before_the_run() -> None:
    assert "pip install liger-kernel" in refusal(use_liger_kernel=True).fix
    check_trainer_options({"use_liger_kernel": False})


def test_trl_has_every_option_that_is_named_here(tmp_path: Path) -> None:
    config = trainer_config(open_stage(GrpoSettings, write_spec(tmp_path, "grpo", BRIEF, {})), 100, [1.0, 0.1])
    assert [name for name in (*OWNED_OPTIONS, *PINNED) if not hasattr(config, name)] == []


@pytest.mark.slow
def test_every_setting_reaches_trl(tmp_path: Path) -> None:
    def config_of(**further: Any) -> Any:
        spec = write_spec(tmp_path, "grpo", {**BRIEF, **settings, **further}, {}, seed=5)
        return trainer_config(open_stage(GrpoSettings, spec), 100, [2.0, 0.5])

    settings = {"loss_type": "dr_grpo", "beta": 0.01, "epsilon": 0.1, "epsilon_high": 0.3, "scale_rewards": "none"}
    settings |= {"delta": 7.0, "steps": 12, "num_iterations": 2, "schedule": "constant", "warmup_steps": 2}
    config = config_of(rewards={"correct": 2.0, "format": 0.5})
    assert {name: getattr(config, name) for name in ("loss_type", "beta", "epsilon", "epsilon_high", "delta")} == {
        "loss_type": "dr_grpo",
        "beta": 0.01,
        "epsilon": 0.1,
        "epsilon_high": 0.3,
        "delta": 7,
    }
    sizes = config.per_device_train_batch_size, config.gradient_accumulation_steps, config.generation_batch_size
    assert sizes == (8, 2, 16)
    assert (config.scale_rewards, config.max_steps, config.seed) == ("none", 12, 5)
    assert config.save_steps == 4  # checkpoints after whole rounds of completions
    assert (config.reward_weights, config.lr_scheduler_type, config.bf16) == ([2.0, 0.5], "constant_with_warmup", False)
    assert (config.use_vllm, config.vllm_max_model_length) == (True, 100)
    assert config.vllm_importance_sampling_correction is True
    assert (config.gradient_checkpointing, config.mask_truncated_completions) == (False, False)
    assert (config.num_iterations, config.warmup_steps) == (2, 2)
    halved = config_of(mini_batches=2, micro_batch_size=4)
    assert (halved.gradient_accumulation_steps, halved.steps_per_generation, halved.generation_batch_size) == (2, 4, 16)


def test_the_way_in_imports_nothing_that_reads_vllms_environment() -> None:
    code = "import sys, stages.grpo.__main__; print([m for m in ('torch', 'trl', 'vllm') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
