"""What a run goes on from: a state of its own, and the latest checkpoint that is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stages.harness.context import StageError
from stages.sft import run as sft
from stages.sft.settings import SftSettings
from stages.training.loop import TRAINER_STATE, find_resumable_checkpoint, train
from tests.tiny import make_tiny_model, open_stage, tiny_demonstrations, write_jsonl, write_spec


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint after each; its spec."""
    folder = tmp_path_factory.mktemp("trained")
    make_tiny_model(folder / "base" / "model")
    write_jsonl(folder / "data" / "sft.jsonl", tiny_demonstrations(8))
    settings = {"batch_size": 4, "max_steps": 2, "max_length": 128, "learning_rate": 1e-3, "checkpoint_steps": 1}
    spec = write_spec(folder / "run", "sft", settings, {"data": folder / "data", "model": folder / "base"})
    sft.run(open_stage(SftSettings, spec))
    return spec


def resume(
    tmp_path: Path, *, done: int, planned_then: int, planned_now: int, best: int | None = None, **trainer_has: Any
) -> tuple[list[str], Any]:
    chosen = None if best is None else str(tmp_path / "checkpoints" / f"checkpoint-{best}")
    for step in {best or done, done}:
        checkpoint = tmp_path / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        state = {"global_step": step, "max_steps": planned_then, "best_model_checkpoint": chosen}
        (checkpoint / TRAINER_STATE).write_text(json.dumps(state), encoding="utf-8")
        save_file({"weight": torch.ones(2)}, checkpoint / "model.safetensors")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({}, checkpoint / name)
    notes: list[str] = []
    loaded: list[str] = []
    ctx: Any = SimpleNamespace(
        settings=SimpleNamespace(max_tokens_per_micro_batch=None),
        state=tmp_path,
        record=tmp_path,
        main=True,
        stops_gracefully=False,
        stop_requested=False,
        note=notes.append,
    )
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            output_dir=str(tmp_path / "checkpoints"),
            max_steps=planned_now,
            load_best_model_at_end=best is not None,
            gradient_accumulation_steps=trainer_has.pop("gradient_accumulation_steps", 1),
            to_dict=dict,
        ),
        **trainer_has,
        state=None,
        _load_from_checkpoint=loaded.append,
    )
    train(ctx, trainer)
    assert loaded == [chosen or str(tmp_path / "checkpoints" / f"checkpoint-{done}")]
    return notes, trainer.state


def test_a_complete_run_says_that_no_step_is_left(tmp_path: Path) -> None:
    notes, state = resume(tmp_path, done=8, planned_then=8, planned_now=8)
    assert notes == ["resuming from step 8 of 8: no step is left to train, its result is saved"]
    assert state.global_step == 8


def test_a_mixture_of_experts_in_parts_says_what_depends_on_them(tmp_path: Path) -> None:
    run = {"done": 8, "planned_then": 8, "planned_now": 8, "gradient_accumulation_steps": 2}
    said, *_ = resume(tmp_path / "mixture", **run, aux_loss_enabled=True)[0]
    assert "load-balancing loss" in said
    assert "router_aux_loss_coef: 0.0" in said
    assert len(resume(tmp_path / "dense", **run, aux_loss_enabled=False)[0]) == 1


def test_of_a_complete_run_the_chosen_checkpoint_is_the_result(tmp_path: Path) -> None:
    _, state = resume(tmp_path, done=8, planned_then=8, planned_now=8, best=4)
    assert state.global_step == 8


def test_the_state_of_a_shorter_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="left by a run of 8 steps, and this one has 16"):
        resume(tmp_path, done=8, planned_then=8, planned_now=16)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One byte in the middle is another, as on a failing disk."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """What a file may hold after a loss of power: its length, and none of its content."""
    path.write_bytes(bytes(path.stat().st_size))


def is_the_first(path: Path) -> None:
    path.write_bytes((path.parents[1] / "checkpoint-1" / path.name).read_bytes())


def chose_one_that_is_gone(path: Path) -> None:
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**state, "best_model_checkpoint": "/gone/checkpoint-1"}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((TRAINER_STATE, damage) for damage in (empty, cut, zeros, is_the_first, chose_one_that_is_gone)),
        (TRAINER_STATE, lambda path: path.write_text("{}")),
        (TRAINER_STATE, lambda path: path.write_text("null")),
        *(("model.safetensors", damage) for damage in (empty, cut, zeros, Path.unlink)),
        *(("optimizer.pt", damage) for damage in (empty, cut, zeros, flip, Path.unlink)),
        *(("scheduler.pt", damage) for damage in (empty, Path.unlink)),
        *(("rng_state.pth", damage) for damage in (empty, flip, Path.unlink)),
        ("reweighting.json", empty),
        ("reweighting.safetensors", cut),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_an_earlier_one(
    trained: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    shutil.copytree(trained.parent / "state" / "checkpoints", tmp_path, dirs_exist_ok=True)
    notes: list[str] = []
    assert find_resumable_checkpoint(tmp_path, notes.append) == tmp_path / "checkpoint-2"
    damage(tmp_path / "checkpoint-2" / name)
    assert find_resumable_checkpoint(tmp_path, notes.append) == tmp_path / "checkpoint-1"
    [note] = notes
    assert note.startswith("checkpoint-2 is damaged and left out: ")
    assert name.partition(".")[0] in note or "the best so far, is gone" in note
    assert not (tmp_path / "checkpoint-2").exists()


def test_a_checkpoint_that_a_kill_left_unfinished_is_no_damage(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent / "state" / "checkpoints", tmp_path, dirs_exist_ok=True)
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}" / TRAINER_STATE).unlink()
    notes: list[str] = []
    assert find_resumable_checkpoint(tmp_path, notes.append) is None
    assert (notes, list(tmp_path.glob("checkpoint-*"))) == ([], [])
    assert find_resumable_checkpoint(tmp_path / "none", notes.append) is None


def test_a_stage_with_a_damaged_checkpoint_ends_in_the_same_bytes(trained: Path) -> None:
    saved = trained.parent / "output" / "model" / "model.safetensors"
    straight = saved.read_bytes()
    empty(trained.parent / "state" / "checkpoints" / "checkpoint-2" / TRAINER_STATE)
    shutil.rmtree(trained.parent / "output")
    sft.run(open_stage(SftSettings, trained))
    assert saved.read_bytes() == straight
    events = (trained.parent / "events.jsonl").read_text(encoding="utf-8")
    assert "checkpoint-2 is damaged and left out: trainer_state.json" in events
    assert "resuming from step 1 of 2" in events
