"""`python -m stages.grpo SPEC.json`."""

from evaluation.engines import vllm_internals
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, Result
from stages.harness.process import run_stage


def run(ctx: Context[GrpoSettings]) -> Result:
    """Set vLLM's environment before anything imports torch, then do the work."""
    if ctx.settings.rollout == "vllm" and ctx.machine.device == "cpu":
        vllm_internals.prepare_environment(ctx.machine.threads)
    from stages.grpo import run as train

    return train.run(ctx)


if __name__ == "__main__":
    run_stage(GrpoSettings, run)
