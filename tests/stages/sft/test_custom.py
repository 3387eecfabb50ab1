"""A weighting method out of a user's file, written as one would write a module."""

import hashlib
import os
import py_compile
import sys
from collections.abc import Iterator
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


def digests(*files: Path) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_what_runs_is_what_the_stages_key_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(DATACLASS)
    settings, planned = CustomSettings(name="custom", file=str(file), options={"power": 2.0}), digests(file)
    assert load_method(settings, planned).power == 2.0  # type: ignore[attr-defined]
    file.write_text(DATACLASS + "\n# edited\n")
    with pytest.raises(StageError, match=r"mine.py changed after this run was planned"):
        load_method(settings, planned)


@pytest.fixture
def importing(tmp_path: Path) -> Iterator[tuple[CustomSettings, Path, Path]]:
    """A custom method that imports a module which lies beside it: settings, its file, the module."""
    file, beside = tmp_path / "mine.py", tmp_path / "curve_of_a_test.py"
    file.write_text(f"from curve_of_a_test import POWER\n{DATACLASS}".replace("power: float", "power: float = POWER"))
    file.write_text(file.read_text().replace("from __future__ import annotations\n", ""))
    beside.write_text("POWER = 3.0\n")
    path = list(sys.path)
    yield CustomSettings(name="custom", file=str(file)), file, beside
    sys.path[:] = path
    sys.modules.pop("curve_of_a_test", None)


def test_a_module_beside_the_file_is_imported_and_compared(importing: tuple[CustomSettings, Path, Path]) -> None:
    settings, file, beside = importing
    planned = digests(file, beside)
    assert load_method(settings, planned).power == 3.0  # type: ignore[attr-defined]
    beside.write_text("POWER = 4.0\n")
    with pytest.raises(StageError, match=r"curve_of_a_test.py changed after this run was planned"):
        load_method(settings, planned)


def test_a_module_that_the_key_does_not_have_is_refused(importing: tuple[CustomSettings, Path, Path]) -> None:
    settings, file, _ = importing
    with pytest.raises(StageError, match=r"mine.py loads .*curve_of_a_test.py in a way that a plan cannot see"):
        load_method(settings, digests(file))


def test_a_compiled_module_of_other_content_is_not_taken(importing: tuple[CustomSettings, Path, Path]) -> None:
    """Python finds `__pycache__` by the source's time and size, which a copied file may keep."""
    settings, _, beside = importing
    py_compile.compile(str(beside))
    stat = beside.stat()
    beside.write_text("POWER = 5.0\n")
    os.utime(beside, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_method(settings).power == 5.0  # type: ignore[attr-defined]
