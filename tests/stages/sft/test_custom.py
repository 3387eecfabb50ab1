"""A weighting method out of a user's file, written as one would write a module."""

import hashlib
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.harness.context import StageError
from stages.sft import run as sft
from stages.sft.method_settings import CustomSettings
from stages.sft.reweighting.custom import load_method
from tests.tiny import read_stage_run

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


def weighing(folder: Path, code: str) -> CustomSettings:
    """A custom method whose `weigh` returns this."""
    file = folder / "mine.py"
    head = "import torch\nfrom stages.sft.reweighting.base import Method\n\nclass Weights(Method):\n"
    file.write_text(f"{head}    def weigh(self, losses, mask, prepared):\n        return {code}\n")
    return CustomSettings(name="custom", file=str(file))


LOSSES, MASK = torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[False, True, True]])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("2.0", r"float, not a tensor of the losses' shape \[1, 3\]"),
        ("losses.mean(-1)", r"a tensor of shape \[1\], not of the losses' shape \[1, 3\]"),
        ("losses[:, :1]", r"a tensor of shape \[1, 1\]"),
        ("losses.to(torch.complex64)", "torch.complex64, not real numbers"),
        ("1 / (losses - 1)", "inf for 1 of 2 supervised tokens; the first has the loss 1"),
        ("losses * float('nan')", "nan for 2 of 2 supervised tokens; the first has the loss 2"),
    ],
)
def test_weights_that_are_none_are_named(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(StageError, match=f"mine.py: weigh returned {message}"):
        load_method(weighing(tmp_path, code)).weigh(LOSSES, MASK, {})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def __init_subclass__(cls, kind): pass", "no class can derive from Weights"),
        ("def __init__(self): self.weigh = lambda *given: None", "sets `weigh` on the object"),
    ],
)
def test_a_class_that_cannot_be_held_to_its_weights_is_refused(tmp_path: Path, code: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"from stages.sft.reweighting.base import Method\n\nclass Weights(Method):\n    {code}\n")
    with pytest.raises(StageError, match=message):
        load_method(CustomSettings(name="custom", file=str(file)))


@pytest.mark.parametrize(("code", "error"), [("1 / 0", "ZeroDivisionError: division"), ("exit(0)", "SystemExit: 0")])
def test_a_method_that_raises_is_an_error_with_its_line(tmp_path: Path, code: str, error: str) -> None:
    with pytest.raises(StageError, match=f"mine.py:6: weigh raised {error}"):
        load_method(weighing(tmp_path, code)).weigh(LOSSES, MASK, {})


def test_memory_that_runs_out_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        load_method(weighing(tmp_path, "exec('raise MemoryError')")).weigh(LOSSES, MASK, {})


@pytest.mark.parametrize("code", ["mask", "mask.half()", "mask.double().requires_grad_()", "(losses / losses)"])
def test_weights_may_be_of_any_type_and_anything_where_there_is_no_loss(tmp_path: Path, code: str) -> None:
    weights = load_method(weighing(tmp_path, code)).weigh(LOSSES, MASK, {})
    assert weights is not None
    assert (weights.dtype, weights.requires_grad, weights.tolist()) == (torch.float32, False, [[0.0, 1.0, 1.0]])


def test_a_method_may_change_the_losses_it_is_given(tmp_path: Path) -> None:
    losses = LOSSES.clone()
    load_method(weighing(tmp_path, "losses.mul_(2)")).weigh(losses, MASK, {})
    assert torch.equal(losses, LOSSES)


def test_weights_that_are_all_0_are_said(sft_context: Any, tmp_path: Path) -> None:
    method = weighing(tmp_path, "torch.zeros_like(losses)").model_dump()
    context = sft_context(method=method)
    with pytest.raises(StageError, match="the weights did not change in 3 steps"):
        sft.run(context)
    notes = read_stage_run(context.spec_path.parent, 0, "").notes
    assert [note for note in notes if "weight 0" in note] == ["step 1: all tokens have the weight 0, and teach nothing"]
