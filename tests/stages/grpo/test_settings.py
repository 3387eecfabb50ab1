"""GRPO settings: what makes no sense is refused before anything loads; micro-batches are no part of the identity."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stages.grpo.settings import GrpoSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts_per_step": 3, "num_generations": 4, "micro_batch_size": 8}, "8 does not divide the 12 completions"),
        ({"num_generations": 1}, "greater than or equal to 2"),
        ({"steps": 10, "num_iterations": 4}, "10 are no whole number of rollouts, each used for 4 steps"),
        ({"steps": 10, "num_iterations": 2, "mini_batches": 2}, "each used for 4 steps"),
        ({"mini_batches": 3}, "3 does not divide the 128 completions of a rollout"),
        ({"micro_batch_size": 8, "max_tokens_per_micro_batch": 99}, "it takes the place of micro_batch_size"),
        ({"share_prompts": True, "max_tokens_per_micro_batch": 99}, "leave max_tokens_per_micro_batch out"),
        ({"share_prompts": True, "lora": {"dropout": 0.1}}, "lora.dropout drops"),
        ({"mini_batches": 4, "micro_batch_size": 64}, "64 does not divide the 32 completions of a step"),
        ({"steps": 5, "warmup_steps": 5}, "5 leave nothing of 5 steps"),
        ({"max_completion_length": 64, "max_model_len": 64}, "leaves no room for a prompt"),
        ({"rewards": {"correct": 0.0, "format": 0.0}}, "nothing to learn from"),
        ({"rewards": {"overlong": 1.0, "overlong_buffer": 600}}, "600 is more than max_completion_length 512"),
        ({"rewards": {"custom": [{"file": "a.py"}, {"file": "b.py"}]}}, "a name of its own"),
        ({"rewards": {"custom": [{"file": "a.py", "function": "correct"}]}}, "a name of its own"),
        ({"loss_type": "cispo"}, "epsilon_high: .* 0.28 would cut every one"),
        ({"top_p": 0.9}, "top_p: vLLM's log-probabilities are of the tokens this leaves"),
        ({"top_k": 20, "rollout": "vllm_server", "server_url": "http://n:8000"}, "top_k: vLLM's log-probabilities"),
        ({"loss_type": "luspo"}, "luspo needs sequence"),
        ({"rollout": "transformers", "max_logprob_difference": 1.0}, "only the rollout vllm"),
        ({"rollout": "sglang"}, "'vllm', 'vllm_server' or 'transformers'"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"lerning_rate": 1.0}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GrpoSettings.model_validate(settings)


def test_how_a_batch_is_cut_is_not_identity_but_its_size_is() -> None:
    plain = GrpoSettings().identity_settings()
    assert GrpoSettings(micro_batch_size=8, grader_workers=1, gpu_memory_utilization=0.5).identity_settings() == plain
    assert GrpoSettings(prompts_per_step=8).identity_settings() != plain
    assert GrpoSettings(rollout="transformers").identity_settings() != plain


def test_bounds_of_the_logprob_difference_follow_the_dtype() -> None:
    assert GrpoSettings().logprob_bounds == (1e-3, 1e-4)
    assert GrpoSettings(dtype="bfloat16").logprob_bounds == (None, 0.1)
    assert GrpoSettings(dtype="bfloat16", max_logprob_difference=2.0).logprob_bounds == (2.0, 0.1)


def test_candidates_may_be_left_out_where_the_trainer_samples_and_cispo_has_its_own_bound() -> None:
    assert GrpoSettings(rollout="transformers", top_p=0.9, top_k=20).top_k == 20
    assert GrpoSettings(loss_type="cispo", epsilon_high=5.0).epsilon_high == 5.0
