"""When a run of several processes stops, and what counts of a look at the dev problems."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stages.grpo.rollout import GrpoCallback
from stages.training import distributed


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
