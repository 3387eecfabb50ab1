"""How TRL's colocated vLLM engine is built here, and the proof in every run that it samples from the weights being trained."""

from __future__ import annotations

import functools
from typing import Any

from evaluation.engines import EngineUnavailable, vllm_internals
from evaluation.engines.vllm_engine import require_vllm
from stages.grpo.rewards import Rewards
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, StageError
from stages.training import distributed
from stages.training.loop import StageCallback

LARGEST = "sampling/sampling_logp_difference/max"
MEAN = "sampling/sampling_logp_difference/mean"
"""TRL's names of the difference between the sampler's and the trainer's log-probability of the sampled tokens, in nats."""
DEV_PASS_RATE = "dev_pass_rate"
"""Share of right completions of the problems in `data.dev`."""


def configure_engine(ctx: Context[GrpoSettings]) -> None:
    """Say which dtype TRL's vLLM engine has, and on a CPU keep its weights loadable. Call before the trainer is built.

    TRL passes no dtype, and vLLM's own choice for a float32 checkpoint is a 16-bit type. TRL has no option for further engine
    arguments, so its name `LLM` is bound to them.

    Raises:
        StageError: vLLM is not installed, or this version cannot be told.
    """
    try:
        require_vllm(ctx.machine.device)
        arguments: dict[str, Any] = {"dtype": ctx.settings.dtype, "disable_log_stats": True}
        if ctx.machine.device == "cpu":
            vllm_internals.keep_weights_loadable()
            arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": ctx.settings.cpu_kv_cache_gib << 30}
    except EngineUnavailable as error:
        raise StageError(str(error), "Install the pinned set, or choose `grpo.rollout: transformers`.") from error
    import trl.generation.vllm_generation as generation

    if not hasattr(generation, "LLM"):
        raise StageError(
            "this TRL does not build vLLM's engine where it did",
            "Install the pinned versions, or choose `grpo.rollout: transformers`.",
        )
    import vllm

    generation.LLM = functools.partial(vllm.LLM, **arguments)


class GrpoCallback(StageCallback):
    """Reports each step, and stops a run whose sampler and trainer no longer hold the same weights."""

    def __init__(self, ctx: Context[GrpoSettings], rewards: Rewards) -> None:
        super().__init__(ctx, "grpo", shown=("reward", "completions/mean_length"))
        self._rewards = rewards

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        """The share of right answers on the dev problems, over all processes: what the Trainer chooses by, and a line of the curve."""
        self._rewards.check_grader(f"data.dev at step {state.global_step}")
        samples: dict[int, list[bool]] = {}
        for verdicts in distributed.gather(self._rewards.take_dev_verdicts()):
            for problem, verdict in verdicts:
                samples.setdefault(problem, []).append(verdict)
        # Where the problems do not share out evenly, the processes get some of them twice: each counts as often as it was asked for.
        counted = [
            verdict for of_problem in samples.values() for verdict in of_problem[: self.ctx.settings.dev_samples]
        ]
        right, total = sum(counted), len(counted)
        metrics[f"eval_{DEV_PASS_RATE}"] = right / total
        state.log_history.append({"step": state.global_step, DEV_PASS_RATE: right / total, "dev_samples": total})
        self.ctx.note(f"step {state.global_step}: {right} of {total} samples of data.dev are right")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._rewards.check_grader(f"step {state.global_step}")
        super().on_step_end(args, state, control, **kwargs)

    def may_stop(self, step: int) -> bool:
        # Completions that are in use for several steps are not part of a checkpoint, so a stop waits for the last of these steps.
        return bool(step % self.ctx.settings.steps_per_rollout == 0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        super().on_log(args, state, control, logs, **kwargs)
        if (
            self.ctx.settings.rollout != "transformers" and "reward" in logs
        ):  # a step that sampled, not the summary at the end
            self._check(state.global_step, logs)

    def _check(self, step: int, logs: dict[str, float]) -> None:
        if LARGEST not in logs or MEAN not in logs:
            raise StageError(f"TRL logs no {LARGEST}: the sampler cannot be checked", "Install the pinned versions.")
        for name, found, bound in zip(
            ("max", "mean"), (logs[LARGEST], logs[MEAN]), self.ctx.settings.logprob_bounds, strict=True
        ):
            if bound is not None and not found <= bound:
                raise StageError(
                    f"step {step}: the {name} log-probability difference of sampled tokens between vLLM and the trainer is {found:.3g}, "
                    f"above {bound:g}: vLLM does not hold the weights that are trained",
                    f"Use the pinned versions. Raise grpo.{name}_logprob_difference only where 16-bit arithmetic explains it.",
                )


def chosen_checkpoint(state: Any, expected: int) -> dict[str, Any]:
    """The curve on the dev problems and the step it chose. Raises StageError where the curve has not `expected` points."""
    curve = [[entry["step"], entry[DEV_PASS_RATE]] for entry in state.log_history if DEV_PASS_RATE in entry]
    if len(curve) != expected:
        raise StageError(f"data.dev was looked at {len(curve)} of {expected} times", "This is an error in the stage.")
    return {"dev_pass_rate": curve, "chosen_step": state.best_global_step}


def check_recorded(ctx: Context[GrpoSettings], history: list[dict[str, float]]) -> dict[str, float]:
    """The largest differences over all steps, those before a resume included. Raises StageError where a step was not measured."""
    measured = [entry for entry in history if LARGEST in entry]
    expected = ctx.settings.steps // ctx.settings.steps_per_rollout
    if len(measured) != expected:
        raise StageError(
            f"the sampler was compared with the trainer in {len(measured)} of {expected} rollouts",
            "This is an error in the stage.",
        )
    return {
        "logprob_difference_max": max(entry[LARGEST] for entry in measured),
        "logprob_difference_mean": max(entry[MEAN] for entry in measured),
    }
