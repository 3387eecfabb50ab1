"""The pinned lists say how they were made, and tools/lock.py makes them so; here of a few small wheels."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
assert _SPEC is not None
assert _SPEC.loader is not None
LOCK = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(LOCK)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def head(text: str) -> tuple[list[str], dict[str, str]]:
    """The sentences that a list begins with, and what it says of how it was made."""
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("#")]
    facts = dict(match.groups() for line in lines if (match := re.fullmatch(r"([a-z ]+): (.+)", line)))
    return [line for line in lines if not re.fullmatch(r"[a-z ]+: .+", line)], facts


def check_head(text: str, machine: str) -> dict[str, str]:
    sentences, facts = head(text)
    assert "--no-deps" in sentences[0]
    assert f"{machine.upper()} machine" in sentences[0]
    assert list(facts) == ["command", "resolver", "resolved", "index as of", "made for"]
    command = re.fullmatch(rf"python tools/lock\.py (--keep )?{machine}", facts["command"])
    assert command
    assert ("held to the pins before" in facts["resolved"]) == bool(command[1])
    assert re.match(r"pip \d+\.\d+\S*: pip install --dry-run ", facts["resolver"])
    day = datetime.date.fromisoformat(facts["index as of"].partition(" ")[0])
    assert datetime.date(2026, 11, 1) <= day <= datetime.datetime.now(datetime.UTC).date()
    made_for = re.fullmatch(r"CPython (\d+\.\d+\.\d+), Linux \S+, \S.*", facts["made for"])
    assert made_for
    assert SpecifierSet(PROJECT["requires-python"]).contains(made_for[1])
    assert text.splitlines()[len(sentences) + len(facts)].partition("==")[1], "nothing but pins after it"
    return facts


@pytest.mark.parametrize("machine", ["cpu", "cuda"])
def test_a_list_says_how_it_was_made(machine: str) -> None:
    check_head((ROOT / "requirements" / f"{machine}.txt").read_text(), machine)


def test_both_lists_are_for_one_python_and_platform() -> None:
    made_for = [head((ROOT / "requirements" / f"{name}.txt").read_text())[1]["made for"] for name in ("cpu", "cuda")]
    assert len({re.sub(r"(\d+\.\d+)\.\d+", r"\1", text).rpartition(",")[0] for text in made_for}) == 1


def wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    info = f"{name}-{version}.dist-info"
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *lines, ""]))
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("fastapi[standard]<0.137.0,>=0.133.0", "fastapi[standard]>=0.133.0"),
        ("FastAPI!=0.140.0,<=0.150", "FastAPI!=0.140.0"),
        ("transformers<5.18,>=5.5.3", "transformers<5.18,>=5.5.3"),
        ("outlines[api]==1; platform_system == 'Linux'", "outlines[api]==1"),
        ("outlines; python_version < '3'", None),
        ("ray; extra == 'ray'", None),
    ],
)
def test_what_is_asked_in_place_of_an_engine(said: str, asked: str | None) -> None:
    assert LOCK.of_engine(said) == asked


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The only index of a small project in tmp_path, whose CPU list is empty."""
    for name in ("index", "requirements"):
        (tmp_path / name).mkdir()
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "small"\ndependencies = ["direct>=1"]\n[project.optional-dependencies]\n'
        '[dependency-groups]\ncpu = ["engine"]\n'
    )
    (tmp_path / "requirements" / "cpu.txt").write_text("# nothing yet\n")
    return tmp_path / "index"


def lock(index: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    environment.pop("PIP_CONSTRAINT", None)
    command = [sys.executable, str(index.parent / "tools" / "lock.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def pins(made: Path) -> list[str]:
    return [line for line in made.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.slow
def test_a_list_is_made_kept_and_checked(index: Path) -> None:
    made = index.parent / "requirements" / "cpu.txt"
    wheel(index, "direct", "1.0", "inner")
    wheel(index, "inner", "1.0")
    wheel(index, "engine", "3.1", 'absent; extra == "more"', "absent<3; python_version < '3'")
    wheel(index, "triton", "1.0")
    assert lock(index, "cpu").returncode == 0
    assert pins(made) == ["direct==1.0", "engine==3.1", "inner==1.0"]
    facts = check_head(made.read_text(), "cpu")
    assert facts["command"] == "python tools/lock.py cpu"

    wheel(index, "inner", "1.1")
    wheel(index, "engine", "3.2", "triton", "more")
    wheel(index, "more", "5.0")
    assert lock(index, "--check", "cpu").returncode == 0, "newer releases are no contradiction"
    assert lock(index, "--keep", "cpu").returncode == 0
    assert pins(made) == ["direct==1.0", "engine==3.1", "inner==1.0"]
    assert check_head(made.read_text(), "cpu")["command"] == "python tools/lock.py --keep cpu"
    assert "3 packages, 0 new or changed" in lock(index, "--keep", "cpu").stdout

    made.write_text(made.read_text().replace("inner==1.0\n", "stray==2.0\n"))
    checked = lock(index, "--check", "cpu")
    assert checked.returncode == 1
    assert "inner==1.1 is needed but not pinned" in checked.stdout
    assert "stray==2.0 is pinned but not needed" in checked.stdout

    assert lock(index, "cpu").returncode == 0
    assert pins(made) == ["direct==1.0", "engine==3.2", "inner==1.1", "more==5.0"], "triton is left out"
    refused = lock(index, "tpu")
    assert refused.returncode == 2
    assert "no list for tpu" in refused.stderr
    assert lock(index, "--check", "--keep").returncode == 2


@pytest.mark.slow
def test_one_bound_of_an_engine_is_set_aside(index: Path) -> None:
    made = index.parent / "requirements" / "cpu.txt"
    wheel(index, "inner", "1.1")
    wheel(index, "more", "5.0")
    for version in ("0.136.3", "0.150.0"):
        wheel(index, "fastapi", version)
    wheel(index, "engine", "3.3", "fastapi<0.137,>=0.133", "more<6")
    wheel(index, "direct", "1.1", "inner", "fastapi>=0.139")
    assert lock(index, "cpu").returncode == 0
    together = ["direct==1.1", "engine==3.3", "fastapi==0.150.0", "inner==1.1", "more==5.0"]
    assert pins(made) == together, "what the engine says of fastapi does not count"
    assert check_head(made.read_text(), "cpu")["resolved"].endswith(", without vLLM's upper bound of fastapi")
    assert lock(index, "--check", "cpu").returncode == 0
    wheel(index, "engine", "3.4", "inner<1")
    refused = lock(index, "cpu")
    assert refused.returncode == 1, "any other bound counts"
    assert "lock: pip cannot resolve the cpu set" in refused.stderr
