"""What this stage uses of TRL and transformers although they do not promise it: private or undocumented names.

Each is used here alone. tests/stages/grpo/test_trl_internals.py tries each one, and says what to read where a new
version has changed it.

TRL's public way into a rollout, `GRPOTrainer(rollout_func=...)`, is not taken: it is experimental, and samples in
place of TRL, so chat template, vLLM's request, and the log-probabilities that prove its weights would be code of ours.
Resampling in it would grade again what it keeps, and TRL's `completions/*` and `num_tokens` would count the final
groups alone. No override below would go: seconds and rewards are taken around the same methods.
"""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import torch
import trl.generation.vllm_generation as vllm_generation
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from trl import GRPOTrainer

from stages.harness.context import StageError
from stages.training.library_internals import merged_parameters

LOGPROB_DIFFERENCES = {name: f"sampling/sampling_logp_difference/{name}" for name in ("max", "mean")}
"""TRL's curves of how the sampler's and the trainer's log-probability of a step's tokens differ, in nats: the proof
that vLLM holds the weights that are trained."""
ZERO_VARIANCE = "frac_reward_zero_std"
"""TRL's curve of the share of completions without an advantage, which StageTrainer corrects."""


def set_engine_arguments(arguments: dict[str, Any]) -> None:
    """Have TRL build vLLM's engine with arguments for which it has no option. Call before the trainer is built.

    Relies on TRL building it by the name `LLM` of `trl.generation.vllm_generation`. Raises StageError where that is
    gone.
    """
    if not hasattr(vllm_generation, "LLM"):
        fix = "Install the pinned versions, or choose `grpo.rollout: transformers`."
        raise StageError("this TRL does not build vLLM's engine where it did", fix)
    import vllm

    vllm_generation.LLM = functools.partial(vllm.LLM, **arguments)


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


class RolloutTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with the parts of a step under public names: methods to call and override, properties to read."""

    _metrics: dict[str, dict[str, list[float]]]
    _pending_metrics: dict[str, list[float]]
    _step: int
    current_gradient_accumulation_steps: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.use_vllm:
            self._sync_weights = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self.sync_weights
            if isinstance(self.model, PeftModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
                # TRL merges the adapter in place: see merged_parameters.
                self.vllm_generation._iter_named_params = functools.partial(merged_parameters, self.model)

    def rollout(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch to train on, from this process' rows of the data; TRL calls `sample`, then `grade`, once each."""
        batch: dict[str, Any] = super()._generate_and_score_completions(rows)
        return batch

    def sample(self, prompts: list[Any]) -> Sampled:
        """A completion of each of this process' prompts."""
        return Sampled(*super()._generate(prompts))

    def grade(self, rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        """Rewards of all processes' completions, shape [completions, reward functions]."""
        rewards: torch.Tensor = super()._calculate_rewards(rows, prompts, completions, completion_ids)
        return rewards

    def sync_weights(self) -> None:
        """Hand the trained weights to vLLM."""
        self._sync_weights()

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

    @property
    def step_is_complete(self) -> bool:
        """After `training_step`: whether it was the last of an optimizer step, for which TRL logs `step_time`."""
        return self._step % self.current_gradient_accumulation_steps == 0

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
