"""`python -m stages.grpo SPEC.json`."""

from evaluation.engines import vllm_cpu
from stages.grpo.settings import GrpoSettings
from stages.runtime import Context, Result, run_stage


def run(ctx: Context[GrpoSettings]) -> Result:
    """Set vLLM's environment before anything imports torch, then do the work."""
    if ctx.settings.rollout == "vllm" and ctx.machine.device == "cpu":
        vllm_cpu.prepare_environment(ctx.machine.threads)
    from stages.grpo import train

    return train.run(ctx)


run_stage(GrpoSettings, run)
