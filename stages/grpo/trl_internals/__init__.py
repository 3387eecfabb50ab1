"""TRL's GRPOTrainer as this stage uses it, and every name of TRL and transformers in it that they do not promise.

Such names, private or undocumented, are used here alone. tests/stages/grpo/internals/test_trl_internals.py tries each
one, and says what to read where a new version has changed it.

TRL's public way into a rollout, `GRPOTrainer(rollout_func=...)`, is experimental and not taken. It samples in place of
TRL: chat template, vLLM's request, and the log-probabilities that prove its weights would be code of ours. Resampling
would grade again what it keeps, and `completions/*` and `num_tokens` would count the final groups alone. No override
below would go: seconds and rewards are taken around the same methods.
"""

from stages.grpo.trl_internals.engine import configure_engine
from stages.grpo.trl_internals.sampler_check import LOGPROB_DIFFERENCES
from stages.grpo.trl_internals.stage_trainer import (
    PARTS,
    ZERO_VARIANCE,
    Sampled,
    StageTrainer,
    whole_groups,
    zero_variance_groups,
)

__all__ = [
    "LOGPROB_DIFFERENCES",
    "PARTS",
    "ZERO_VARIANCE",
    "Sampled",
    "StageTrainer",
    "configure_engine",
    "whole_groups",
    "zero_variance_groups",
]
