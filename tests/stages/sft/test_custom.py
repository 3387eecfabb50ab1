"""A weighting method out of a user's file, written as one would write a module."""

import hashlib
from pathlib import Path

import pytest

from stages.harness.context import StageError
from stages.sft.method_settings import CustomSettings
from stages.sft.reweighting.custom import load_method

DATACLASS = """
from __future__ import annotations

import dataclasses

from stages.sft.reweighting.base import Method


@dataclasses.dataclass
class Weights(Method):
    power: float

    def weigh(self, losses, mask, prepared):
        return losses ** self.power
"""


def test_a_method_may_be_a_dataclass_with_postponed_annotations(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(DATACLASS)
    made = load_method(CustomSettings(name="custom", file=str(file), options={"power": 2.0}))
    assert made.power == 2.0  # type: ignore[attr-defined]


def test_a_file_that_ends_the_process_is_an_error_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("raise SystemExit(0)\n")
    with pytest.raises(StageError, match=r"mine.py: SystemExit: 0"):
        load_method(CustomSettings(name="custom", file=str(file)))


def test_what_runs_is_what_the_stages_key_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(DATACLASS)
    settings = CustomSettings(name="custom", file=str(file), options={"power": 2.0})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load_method(settings, digest).power == 2.0  # type: ignore[attr-defined]
    file.write_text(DATACLASS + "\n# edited\n")
    with pytest.raises(StageError, match=r"mine.py changed after this run was planned"):
        load_method(settings, digest)
