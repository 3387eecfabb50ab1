"""A state left behind that does not belong to this run is refused, before it could end a run that trained nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.harness.context import StageError
from stages.training.loop import TRAINER_STATE, train


def resume(
    tmp_path: Path, *, done: int, planned_then: int, planned_now: int, best: int | None = None
) -> tuple[list[str], Any]:
    checkpoint = tmp_path / "checkpoints" / f"checkpoint-{done}"
    checkpoint.mkdir(parents=True)
    chosen = None if best is None else str(tmp_path / "checkpoints" / f"checkpoint-{best}")
    state = {"global_step": done, "max_steps": planned_then, "best_model_checkpoint": chosen}
    (checkpoint / TRAINER_STATE).write_text(json.dumps(state), encoding="utf-8")
    notes: list[str] = []
    loaded: list[str] = []
    ctx: Any = SimpleNamespace(
        state=tmp_path, record=tmp_path, main=True, stops_gracefully=False, stop_requested=False, note=notes.append
    )
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            output_dir=str(tmp_path / "checkpoints"),
            max_steps=planned_now,
            load_best_model_at_end=best is not None,
            to_dict=dict,
        ),
        state=None,
        _load_from_checkpoint=loaded.append,
    )
    train(ctx, trainer)
    assert loaded == [chosen or str(checkpoint)]
    return notes, trainer.state


def test_a_complete_run_says_that_no_step_is_left(tmp_path: Path) -> None:
    notes, state = resume(tmp_path, done=8, planned_then=8, planned_now=8)
    assert notes == ["resuming from step 8 of 8: no step is left to train, its result is saved"]
    assert state.global_step == 8


def test_of_a_complete_run_the_chosen_checkpoint_is_the_result(tmp_path: Path) -> None:
    _, state = resume(tmp_path, done=8, planned_then=8, planned_now=8, best=4)
    assert state.global_step == 8


def test_the_state_of_a_shorter_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="left by a run of 8 steps, and this one has 16"):
        resume(tmp_path, done=8, planned_then=8, planned_now=16)
