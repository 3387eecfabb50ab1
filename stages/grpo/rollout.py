"""What is watched in every step: the grader, dev problems, and that vLLM samples from the weights being trained."""

import statistics
from typing import Any

from evaluation.records import VERDICTS
from stages.grpo.rewards import Rewards
from stages.grpo.settings import GrpoSettings
from stages.grpo.trl_internals import LOGPROB_DIFFERENCES, ZERO_VARIANCE
from stages.harness.context import Context, StageError
from stages.training import distributed
from stages.training.loop import StageCallback

DEV_PASS_RATE = "dev_pass_rate"
"""Share of right completions of the problems in `data.dev`."""
TF32_RATIO = 30
"""How far above its bound a log-probability difference may be for TF32 in vLLM's attention to be named as its likely
cause: simulated on tiny models it was up to four times above. A judgement, with room for larger models."""


class GrpoCallback(StageCallback):
    """Reports each step, and stops a run whose grader fails, or whose sampler and trainer hold different weights."""

    def __init__(self, ctx: Context[GrpoSettings], rewards: Rewards) -> None:
        super().__init__(ctx, "grpo", shown=("reward", "completions/mean_length"))
        self._rewards = rewards

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        """Log the share of right answers on the dev problems, over all processes, by which the Trainer chooses."""
        self._check_grader(f"data.dev at step {state.global_step}")
        samples: dict[int, list[bool]] = {}
        for verdicts in distributed.gather(self._rewards.take_dev_verdicts()):
            for problem, verdict in verdicts:
                samples.setdefault(problem, []).append(verdict)
        # Where the problems do not share out evenly, some are sampled twice; only `dev_samples` of each count.
        counted = [verdict for verdicts in samples.values() for verdict in verdicts[: self.ctx.settings.dev_samples]]
        right, total = sum(counted), len(counted)
        metrics[f"eval_{DEV_PASS_RATE}"] = right / total
        state.log_history.append({"step": state.global_step, DEV_PASS_RATE: right / total, "dev_samples": total})
        self.ctx.note(f"step {state.global_step}: {right} of {total} samples of data.dev are right")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check_grader(f"step {state.global_step}")
        super().on_step_end(args, state, control, **kwargs)

    def _check_grader(self, when: str) -> None:
        self._rewards.check_grader(when, self.ctx.settings.max_grader_error_share)

    def may_stop(self, step: int) -> bool:
        # Completions in use for several steps are not part of a checkpoint: a stop waits for the last of these steps.
        return bool(step % self.ctx.settings.steps_per_rollout == 0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        super().on_log(args, state, control, logs, **kwargs)
        if self.ctx.settings.rollout != "transformers" and "reward" in logs:  # a step that sampled
            self._check_sampler(state.global_step, logs)
        if len(rollouts_of(state)) >= self.ctx.settings.max_rollouts_without_signal:
            check_signal(rollouts_of(state))

    def _check_sampler(self, step: int, logs: dict[str, float]) -> None:
        for (name, curve), bound in zip(LOGPROB_DIFFERENCES.items(), self.ctx.settings.logprob_bounds, strict=True):
            if curve not in logs:
                raise StageError(f"TRL logs no {curve}: the sampler cannot be checked", "Install the pinned versions.")
            if bound is not None and not logs[curve] <= bound:
                raise StageError(
                    f"step {step}: the {name} log-probability difference of sampled tokens between vLLM and the "
                    f"trainer is {logs[curve]:.3g}, above {bound:g}: vLLM does not hold the weights that are trained, "
                    "or computes otherwise",
                    f"{self._likely_cause(logs[curve], bound)}Use the pinned versions. Raise "
                    f"grpo.{name}_logprob_difference only where 16-bit arithmetic explains it.",
                )

    def _likely_cause(self, difference: float, bound: float) -> str:
        """What explains a difference that is not far above its bound: other weights differ by far more."""
        float32_on_cuda = self.ctx.machine.device == "cuda" and self.ctx.settings.dtype == "float32"
        if float32_on_cuda and difference <= TF32_RATIO * bound:
            return (
                "In float32 on a GPU the likely cause is TF32: vLLM's attention is Triton's, which is exact only with "
                "TRITON_F32_DEFAULT=ieee in the environment (a stage's has it; an engine started elsewhere may not). "
            )
        return ""


def rollouts_of(state: Any) -> list[dict[str, float]]:
    """The logged curves of each rollout so far; a step on completions sampled before has none of its own."""
    return [entry for entry in state.log_history if "reward" in entry]


def check_signal(rollouts: list[dict[str, float]]) -> None:
    """Raise StageError where no group of any rollout had rewards that differ: nothing was or could be learnt."""
    if any(entry[ZERO_VARIANCE] < 1 for entry in rollouts):
        return
    verdicts = {verdict: round(sum(entry[f"verdicts/{verdict}"] for entry in rollouts)) for verdict in VERDICTS}
    counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items() if count)
    cut = statistics.fmean(entry["completions/clipped_ratio"] for entry in rollouts)
    problem = (
        f"in all {len(rollouts)} rollouts so far, the completions of each prompt had the same reward ({ZERO_VARIANCE} "
        f"1.0), so that none had an advantage and the gradient was 0. Verdicts: {counted}; {cut:.0%} of the "
        "completions were cut at max_completion_length"
    )
    if verdicts["correct"] == 0:
        fix = (
            "Look at the gold answers (the columns of `data.rl`), at the reward (`vcore doctor --rewards CONFIG`), and "
            "at how many prompts the checkpoint solves in several samples (`difficulty:` with min_solved, docs/rl.md). "
            "Easier prompts, longer SFT or a larger max_completion_length make a first success likely"
        )
    elif verdicts["correct"] == sum(verdicts.values()):
        fix = "The checkpoint solves these prompts already: take harder ones (`difficulty:` with below, docs/rl.md)"
    else:
        fix = "Keep prompts that are solved in some samples (`difficulty:`, docs/rl.md), or raise grpo.num_generations"
    raise StageError(
        problem,
        f"A higher learning rate cannot help. {fix}; grpo.max_rollouts_without_signal lets a run try for longer.",
    )


def chosen_checkpoint(state: Any, expected: int) -> dict[str, Any]:
    """The curve on the dev problems and the step it chose.

    Raises:
        StageError: the curve does not have `expected` points.
    """
    curve = [[entry["step"], entry[DEV_PASS_RATE]] for entry in state.log_history if DEV_PASS_RATE in entry]
    if len(curve) != expected:
        raise StageError(f"data.dev was looked at {len(curve)} of {expected} times", "This is an error in the stage.")
    return {"dev_pass_rate": curve, "chosen_step": state.best_global_step}


def check_recorded(settings: GrpoSettings, history: list[dict[str, float]]) -> dict[str, float]:
    """The largest log-probability differences over all steps, those before a resume included.

    Raises:
        StageError: a rollout was not measured.
    """
    measured = [entry for entry in history if LOGPROB_DIFFERENCES["max"] in entry]
    expected = settings.steps // settings.steps_per_rollout
    if len(measured) != expected:
        problem = f"the sampler was compared with the trainer in {len(measured)} of {expected} rollouts"
        raise StageError(problem, "This is an error in the stage.")
    return {
        f"logprob_difference_{name}": max(entry[curve] for entry in measured)
        for name, curve in LOGPROB_DIFFERENCES.items()
    }
