"""Planning a stage that an earlier attempt has begun, or that another process computes. The store is real."""

import json
import os
from pathlib import Path

from pipeline.store.store import Store
from tests.pipeline.helpers import plan


def test_left_state_is_resumed(tmp_path: Path) -> None:
    key = plan(tmp_path)["base"].key
    state = tmp_path / "home" / "work" / "base" / str(key) / "state"
    state.mkdir(parents=True)
    (state / "checkpoint").write_text("x")
    resumed = plan(tmp_path)["base"]
    assert (resumed.state, resumed.reason) == ("RESUME", "an interrupted attempt left its state")


def test_an_attempt_that_came_to_nothing_is_not_resumed(tmp_path: Path) -> None:
    work = tmp_path / "home" / "work" / "base" / str(plan(tmp_path)["base"].key)
    (work / "state" / "checkpoints").mkdir(parents=True)
    progress = {"event": "progress", "phase": "base", "step": 0, "total": 20, "time": 1.0}
    (work / "events.jsonl").write_text(json.dumps(progress) + "\n")
    assert (plan(tmp_path)["base"].state, plan(tmp_path)["base"].reason) == ("RUN", "never run")
    (work / "state" / "samples.jsonl").write_text("{}\n")  # a later attempt has told nothing of these yet
    resumed = plan(tmp_path)["base"]
    assert (resumed.state, resumed.reason) == ("RESUME", "an interrupted attempt left its state")


def test_what_another_process_computes_is_waited_for(tmp_path: Path) -> None:
    key = str(plan(tmp_path)["base"].key)
    state = tmp_path / "home" / "work" / "base" / key / "state"
    state.mkdir(parents=True)
    (state / "checkpoint").write_text("x")
    with Store(tmp_path / "home").lock("base", key, print):
        busy = plan(tmp_path)["base"]
        assert busy.state == "WAIT"
        assert busy.reason.startswith(f"is being computed by process {os.getpid()} on ")
        assert busy.key == key
    assert plan(tmp_path)["base"].state == "RESUME", "the lock is free, whoever held it last"


def test_a_resumed_stage_says_from_where(tmp_path: Path) -> None:
    work = tmp_path / "home" / "work" / "base" / str(plan(tmp_path)["base"].key)
    for name, whole in (("checkpoint-90", True), ("checkpoint-120", True), ("checkpoint-130", False)):
        (work / "state" / "checkpoints" / name).mkdir(parents=True)
        if whole:
            (work / "state" / "checkpoints" / name / "trainer_state.json").write_text("{}")
    events = [{"event": "progress", "phase": "sft", "step": step, "total": 400} for step in (130, 131)]
    (work / "events.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in [*events, {"event": "note"}]) + '{"event": "prog'
    )
    assert plan(tmp_path)["base"].reason == "resumes from checkpoint-120; it had come to 131 of 400 (sft)"
