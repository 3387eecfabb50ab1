"""The way into the GRPO stage. Imports nothing heavy: vLLM and torch read their environment when they are imported.

What the stage does is in stages/grpo/train.py.
"""

from collections.abc import Mapping
from typing import Any

from evaluation.engines import vllm_internals
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, Result


def run(ctx: Context[GrpoSettings]) -> Result:
    """Set vLLM's environment, then import what reads it, and train."""
    if ctx.settings.rollout == "vllm" and ctx.machine.device == "cpu":
        vllm_internals.prepare_environment(ctx.machine.threads)
    from stages.grpo.train import train

    return train(ctx)


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check `grpo.trainer` as `stages.grpo.config.check_trainer_options` does, which imports TRL."""
    from stages.grpo import config

    config.check_trainer_options(options)
