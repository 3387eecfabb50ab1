"""A stage that another Python runs: a real environment, a real stage, its manifest and its bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.cli.planning.interpreters import stage_pythons
from pipeline.core.errors import StageFailed
from pipeline.plan.decide import Decider, Options
from pipeline.plan.graph import build_graph
from pipeline.run.execute import Executor
from pipeline.run.view import View
from pipeline.store.store import Artifact, Store
from tests.pipeline.environments import install_other_version, make_environment
from tests.pipeline.helpers import config


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = make_environment(tmp_path / "venv")
    install_other_version(folder, "math_verify", "9.9.9")
    return folder


def run_data(tmp_path: Path, *overrides: str, forced: bool = False) -> Artifact:
    settings = config(tmp_path, "execution.device=cpu", "execution.threads=1", *overrides)
    options = Options(force=("data",)) if forced else Options()
    executor = Executor(Decider(settings, Store(settings.home_folder), options), View(), command="")
    return executor.ensure(build_graph(settings)[0]).artifact


@pytest.mark.slow
def test_it_makes_the_same_bytes_and_its_manifest_says_what_ran(tmp_path: Path, environment: Path) -> None:
    own = run_data(tmp_path)
    other = run_data(tmp_path, f"execution.python.data={environment}")
    assert own.key != other.key
    assert own.manifest.digest == other.manifest.digest
    assert own.manifest.python == sys.executable
    assert other.manifest.python == f"{environment}/bin/python"
    assert other.manifest.versions["math-verify"] == other.manifest.preimage.versions["math-verify"] == "9.9.9"
    assert own.manifest.versions["math-verify"] != "9.9.9"
    assert other.manifest.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert other.manifest.versions["vcore-pipeline"] == own.manifest.versions["vcore-pipeline"]
    said = json.loads((other.folder / "record" / "result.json").read_text())
    assert said["python"] == other.manifest.python


@pytest.mark.slow
def test_the_same_versions_are_the_same_artifact(tmp_path: Path) -> None:
    own = run_data(tmp_path)
    same = make_environment(tmp_path / "same")
    again = run_data(tmp_path, f"execution.python.data={same}", forced=True)
    assert own.key == again.key
    assert again.manifest.python == f"{same}/bin/python"
    assert own.manifest.files != []
    assert own.manifest.digest == again.manifest.digest


@pytest.mark.slow
def test_what_ran_with_other_versions_than_planned_is_not_published(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the node of a job that has another environment at the same path: here it changes when the stage starts."""
    named, file = f"execution.python.data={environment}", next(environment.glob("lib/*/site-packages/*-9.9.9.*"))
    monkeypatch.setattr("pipeline.plan.keys.KeyMaker.check_unchanged", lambda maker, stage: _rewrite(file / "METADATA"))
    with pytest.raises(StageFailed, match=r"its process ran with math-verify 9\.9\.8, not 9\.9\.9 as its key says"):
        run_data(tmp_path, named)
    assert not list((tmp_path / "home").glob("store/data/*"))


def _rewrite(metadata: Path) -> None:
    metadata.write_text(metadata.read_text().replace("9.9.9", "9.9.8"))


@pytest.mark.slow
def test_doctor_says_which_python_runs_each_stage(tmp_path: Path, environment: Path) -> None:
    bare = make_environment(tmp_path / "bare", libraries=False)
    config(tmp_path)
    overrides = [f"home={tmp_path}/home", f"execution.python={{score: {environment}, report: {bare}}}"]
    told = {one.stages: one for one in stage_pythons(tmp_path / "small.yaml", overrides)}
    assert told["data"].own
    assert str(told["data"]).startswith(f"{sys.executable} (the own one): python 3.")
    scores = told["score.base, score.sft, score.grpo"]
    assert scores.wrong == ""
    assert scores.python == f"{environment}/bin/python"
    assert scores.versions["math-verify"] == "9.9.9"
    assert "lacks evaluate, jinja2, matplotlib" in told["report"].wrong
    assert "pip install" in told["report"].advice
