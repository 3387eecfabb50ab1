"""The line that says when a run will end."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import pytest

from pipeline.config.execution import ExecutionSettings
from pipeline.launch import machine
from pipeline.run.outlook import outlook
from tests.pipeline.helpers import make, plan

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
CPU = ExecutionSettings(device="cpu")


def took(tmp_path: Path, *overrides: str, **seconds: float | None) -> list[object]:
    planned = plan(tmp_path, *overrides)
    return [
        dataclasses.replace(one, last_seconds=seconds.get(name.replace(".", "_"), one.last_seconds))
        for name, one in planned.items()
    ]


def test_what_is_left_and_till_when(tmp_path: Path) -> None:
    make(tmp_path)
    assert outlook(took(tmp_path), CPU) == ""  # all is cached
    left = took(tmp_path, "sft.learning_rate=1e-3", sft=1200.0, grpo=1800.0, generate_sft=60.0, generate_grpo=120.0)
    rest = "left, judging by the last time these stages ran; done at about"
    assert outlook(left, CPU, now=NOON) == f"about 53 min {rest} 12:53"  # and 7.5 s of the others
    assert outlook(left, CPU, {"sft", "generate.sft", "score.sft"}, NOON) == f"about 32 min {rest} 12:32"
    assert outlook(left, CPU, {"sft", "generate.sft", "grpo", "generate.grpo"}, NOON) == ""  # little
    long = took(tmp_path, "sft.learning_rate=1e-3", sft=20 * 3600.0)
    assert outlook(long, CPU, now=NOON) == f"about 20.0 h {rest} 08:00 on Sunday"


def test_stages_of_which_nothing_is_known_are_named_and_leave_the_end_open(tmp_path: Path) -> None:
    assert outlook(took(tmp_path), CPU) == ""  # never run
    make(tmp_path)
    left = took(tmp_path, "sft.learning_rate=1e-3", sft=None, grpo=1800.0)
    line = outlook(left, CPU, now=NOON)
    assert line == "about 30 min left, judging by the last time these stages ran; not known of sft"


def test_gpu_hours_are_those_of_the_stages_that_hold_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.setattr(machine, "stage_device", lambda execution, stage: "cuda")
    left = took(tmp_path, "sft.learning_rate=1e-3", sft=7200.0, grpo=3600.0, report=9000.0)
    assert "; 3.0 GPU hours" in outlook(left, ExecutionSettings(device="cuda"), now=NOON)
