"""Runs in a real MLflow: a SQLite store, a folder, and a server that is not there."""

from __future__ import annotations

import math
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.export import MlflowExport
from pipeline.export.process import ExportFailed, export_run
from tests.pipeline.export.real import clean, needs, read_back
from tests.pipeline.export.runs import COMMIT, STEPS, make_run

pytestmark = [pytest.mark.slow, needs("mlflow")]
READ = """
import json, os, sys
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
experiments = client.search_experiments()
runs = client.search_runs([e.experiment_id for e in experiments])
curves = [k for r in runs for k in r.data.metrics if k.startswith(("sft/", "grpo/"))]
print(json.dumps({
    "experiments": [e.name for e in experiments],
    "runs": [{
        "id": r.info.run_id, "name": r.info.run_name, "status": r.info.status, "start": r.info.start_time,
        "end": r.info.end_time, "params": r.data.params, "tags": r.data.tags, "metrics": r.data.metrics,
        "files": [f.path for f in client.list_artifacts(r.info.run_id)],
        "curves": {k: [[m.step, m.value] for m in client.get_metric_history(r.info.run_id, k)] for k in curves},
    } for r in runs],
}))
"""
HALVE = """
import sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
(run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
client.delete_tag(run.info.run_id, "vcore.exported")
print("0")
"""
DELETE = """
import sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
client.delete_experiment(client.get_experiment_by_name("small").experiment_id)
print("0")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean(monkeypatch, tmp_path)
    return tmp_path / "home"


def runs_in(uri: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_back(READ, uri)["runs"]
    return found


def test_a_run_is_there_once_with_all_that_it_has(home: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    name = make_run(tmp_path)
    first = export_run(home, name, MlflowExport(uri=uri))
    assert (first.state, first.where, first.trouble) == ("exported", f"{uri}, experiment small", [])
    assert first.points == 2 * STEPS + 3
    second = export_run(home, name, MlflowExport(uri=uri))
    assert (second.state, second.run, second.points) == ("there", first.run, 0)
    (run,) = runs_in(uri)
    assert (run["id"], run["name"], run["status"]) == (first.run, name, "FINISHED")
    assert run["start"] <= run["end"]
    assert run["params"]["sft.learning_rate"] == "0.002"
    assert run["tags"]["vcore.run"] == name
    assert run["tags"]["vcore.commit"] == run["tags"]["mlflow.source.git.commit"] == COMMIT
    assert run["tags"]["vcore.inputs.grpo"].startswith("data=data/")
    assert run["tags"]["vcore.gate"] == "PASS"
    assert run["metrics"]["word_problems/grpo/score"] == 0.75
    assert run["metrics"]["word_problems/grpo/low"] == pytest.approx(0.65)
    assert run["curves"]["sft/loss"] == [[step, 2.0 / step] for step in range(1, STEPS + 1)]
    assert run["curves"]["grpo/reward"][0] == [1, 0.25]
    assert math.isnan(run["curves"]["grpo/reward"][1][1])
    assert sorted(run["files"]) == ["report.html", "report.md"]


def test_runs_of_one_pipeline_stand_side_by_side(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run found everything in the cache, and failed later: it has the same curves."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    names = [make_run(tmp_path), make_run(tmp_path, until="grpo", status="failed", error="no memory")]
    for name in names:
        export_run(home, name, MlflowExport(report=False))
    found = {run["name"]: run for run in runs_in(uri)}
    assert [found[name]["status"] for name in names] == ["FINISHED", "FAILED"]
    assert found[names[1]]["tags"]["vcore.state.sft"] == "cached"
    assert found[names[1]]["tags"]["vcore.error"] == "no memory"
    assert found[names[0]]["curves"]["sft/loss"] == found[names[1]]["curves"]["sft/loss"]
    assert found[names[0]]["files"] == []
    assert "from the environment" in read_back(READ, uri)["experiments"]


def test_half_a_run_is_written_anew(home: Path, tmp_path: Path) -> None:
    """As an attempt leaves it whose server went away: without the tag that is written last."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    name = make_run(tmp_path)
    first = export_run(home, name, MlflowExport(uri=uri))
    read_back(HALVE, uri)
    second = export_run(home, name, MlflowExport(uri=uri))
    assert (second.state, second.run != first.run) == ("exported", True)
    (run,) = runs_in(uri)
    assert (run["id"], len(run["curves"]["sft/loss"])) == (second.run, STEPS)


def test_a_folder_serves_as_a_store(home: Path, tmp_path: Path) -> None:
    """MLflow opens one only where it is told that it may, which naming it says."""
    name = make_run(tmp_path)
    assert export_run(home, name, MlflowExport(uri=str(tmp_path / "mlruns"))).state == "exported"
    assert export_run(home, name, MlflowExport(uri=(tmp_path / "mlruns").as_uri())).state == "there"
    (run,) = runs_in(str(tmp_path / "mlruns"))
    assert len(run["curves"]["sft/loss"]) == STEPS


def test_an_experiment_that_was_deleted_is_said(home: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    name = make_run(tmp_path)
    export_run(home, name, MlflowExport(uri=uri))
    read_back(DELETE, uri)
    with pytest.raises(ExportFailed, match="the experiment 'small' was deleted there\nRestore it"):
        export_run(home, name, MlflowExport(uri=uri))


def test_a_server_that_is_not_there_is_given_up_soon(home: Path, tmp_path: Path) -> None:
    name = make_run(tmp_path)
    with socket.socket() as taken:  # and listens to nobody
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ExportFailed, match=r"^mlflow: MlflowException: API request to .* failed") as failed:
            export_run(home, name, MlflowExport(uri=uri, time_limit_s=200))
    assert "Connection refused" in (home / "runs" / name / "export-mlflow.log").read_text()
    assert "export-mlflow.log" in failed.value.fix


def test_a_damaged_run_is_exported_as_far_as_it_can_be_read(home: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    name = make_run(tmp_path)
    shutil.rmtree(home / "store/grpo")
    sent = export_run(home, name, MlflowExport(uri=uri))
    assert sent.trouble == ["grpo: its artifact is gone from the store, and with it inputs and curve"]
    (run,) = runs_in(uri)
    assert sorted(run["curves"]) == ["sft/kl", "sft/loss"]
