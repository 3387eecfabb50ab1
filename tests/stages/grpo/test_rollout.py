"""When a run stops: on request in several processes, and where nothing is ever rewarded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.records import VERDICTS
from stages.grpo.rollout import GrpoCallback, check_signal
from stages.grpo.settings import GrpoSettings
from stages.grpo.trl_internals import LOGPROB_DIFFERENCES, ZERO_VARIANCE
from stages.harness.context import StageError
from stages.training import distributed
from tests.stages.grpo.runs import BRIEF, curve
from tests.tiny import run_stage_program, write_jsonl


def test_one_process_draws_what_it_always_drew_and_no_other_what_it_or_the_next_seed_draws() -> None:
    seeds = [distributed.seed(of_run, stream) for of_run in range(8) for stream in range(8)]
    assert distributed.seed(5, 0) == 5
    assert len(set(seeds)) == len(seeds)
    assert seeds == [distributed.seed(of_run, stream) for of_run in range(8) for stream in range(8)]


@pytest.mark.parametrize("here", [True, False])
def test_a_request_that_one_process_got_stops_all_after_the_rollouts_last_step(
    here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rollouts serve two steps. Each process asks the others after each step: one that did not would leave them
    waiting, and one that stopped after the first step would lose the completions in use."""
    requests: list[bool] = []

    def gather(value: bool) -> list[bool]:
        requests.append(value)
        return [value, not here]

    monkeypatch.setattr(distributed, "gather", gather)
    ctx: Any = SimpleNamespace(
        stop_requested=here, settings=SimpleNamespace(steps_per_rollout=2, max_grader_error_share=0)
    )
    rewards: Any = SimpleNamespace(check_grader=lambda when, share: None)
    callback = GrpoCallback(ctx, rewards)
    for step, leaves in ((1, False), (2, True)):
        control = SimpleNamespace(should_log=True, should_save=False, should_training_stop=False)
        callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=4), control)
        assert (len(requests), control.should_save, control.should_training_stop) == (step, leaves, leaves)


def rollout(zero_variance: float = 1.0, cut: float = 0.0, **verdicts: int) -> dict[str, float]:
    counts = {f"verdicts/{verdict}": float(verdicts.get(verdict, 0)) for verdict in VERDICTS}
    return {"reward": 0.5, ZERO_VARIANCE: zero_variance, "completions/clipped_ratio": cut, **counts}


@pytest.mark.parametrize(
    ("rollouts", "said", "advice"),
    [
        ([rollout(wrong=12, no_answer=4, cut=0.25)] * 3, "36 wrong, 12 no_answer; 25% of the", "gold answers"),
        ([rollout(correct=16)] * 3, "48 correct; 0%", "solves these prompts already"),
        ([rollout(correct=16), rollout(wrong=16)], "16 correct, 16 wrong", "raise grpo.num_generations"),
        ([rollout(timeout=8, grader_error=8)], "in all 1 rollouts", "vcore doctor --rewards"),
    ],
)
def test_rollouts_without_a_signal_are_explained(rollouts: list[Any], said: str, advice: str) -> None:
    with pytest.raises(StageError, match=said) as refused:
        check_signal(rollouts)
    assert advice in refused.value.fix
    assert refused.value.fix.startswith("A higher learning rate cannot help.")


def test_one_group_with_a_signal_in_one_rollout_is_enough() -> None:
    check_signal([rollout(wrong=16), rollout(0.75, wrong=15, correct=1), rollout(wrong=16)])


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "done"), [(8, 3), (2, 2)])
def test_rl_in_which_nothing_is_rewarded_stops_and_says_why(
    grpo_inputs: dict[str, Path], tmp_path: Path, steps: int, done: int
) -> None:
    """Also a run too short for the bound, whose end would otherwise advise a higher learning rate."""
    prompts = [{"id": str(i), "benchmark": "sums", "kind": "maths", "prompt": f"What is {i}+1?"} for i in range(8)]
    write_jsonl(tmp_path / "data" / "rl.jsonl", [{**row, "gold": "\\text{never so}"} for row in prompts])
    settings = {**BRIEF, "rollout": "transformers", "steps": steps, "rewards": {"format": 0.0}}
    settings |= {"max_rollouts_without_signal": 3, "stop_check_prompts": 0}
    run = run_stage_program(tmp_path, "grpo", settings, {**grpo_inputs, "data": tmp_path / "data"})
    assert run.code == 1
    assert run.error is not None
    assert run.error["message"].startswith(f"in all {done} rollouts so far, the completions of each prompt had")
    assert len(curve(run.output)) == done


@pytest.mark.parametrize(
    ("device", "difference", "named"), [("cuda", 4e-3, True), ("cuda", 0.5, False), ("cpu", 4e-3, False)]
)
def test_a_difference_that_tf32_explains_says_so(device: str, difference: float, named: bool) -> None:
    ctx: Any = SimpleNamespace(machine=SimpleNamespace(device=device), settings=GrpoSettings())
    callback = GrpoCallback(ctx, SimpleNamespace())  # type: ignore[arg-type]
    logs = dict.fromkeys(LOGPROB_DIFFERENCES.values(), difference)
    with pytest.raises(StageError, match=r"above 0\.001") as stopped:
        callback._check_sampler(3, logs)
    assert ("TRITON_F32_DEFAULT=ieee" in stopped.value.fix) == named
