"""Runs in the real local store of trackio."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.export import TrackioExport
from pipeline.export.process import ExportFailed, export_run
from tests.pipeline.export.real import clean, needs, read_back
from tests.pipeline.export.runs import STEPS, make_run

pytestmark = [pytest.mark.slow, needs("trackio")]
READ = """
import json, sys, trackio
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps([
    {"id": r.id, "name": r.name, "config": r.config, "rows": SQLiteStorage.get_logs(sys.argv[1], r.name, run_id=r.id)}
    for r in trackio.Api().runs(sys.argv[1])
]))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean(monkeypatch, tmp_path)
    return tmp_path / "home"


def runs_in(folder: Path, project: str = "small") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_back(READ, project, TRACKIO_DIR=str(folder))
    return found


def test_a_run_is_there_once_with_all_that_it_has(home: Path, tmp_path: Path) -> None:
    settings = TrackioExport(folder=str(tmp_path / "trackio"))
    name = make_run(tmp_path)
    first = export_run(home, name, settings)
    assert (first.state, first.points) == ("exported", 2 * STEPS + 3)
    assert first.where == f"{tmp_path / 'trackio'}, project small"
    assert export_run(home, name, settings).state == "there"
    (run,) = runs_in(tmp_path / "trackio")
    assert run["name"] == name
    assert run["config"]["sft"]["learning_rate"] == 0.002
    assert run["config"]["vcore"]["key.sft"] == next((home / "store/sft").iterdir()).name
    assert run["config"]["_Group"] == "small"
    loss = [[row["step"], row["sft/loss"]] for row in run["rows"] if "sft/loss" in row]
    assert loss == [[step, 2.0 / step] for step in range(1, STEPS + 1)]
    rewards = [row["grpo/reward"] for row in run["rows"] if "grpo/reward" in row]
    assert rewards == [0.25, pytest.approx(math.nan, nan_ok=True)]
    (last,) = [row for row in run["rows"] if "word_problems/grpo/score" in row]
    assert last["word_problems/grpo/score"] == 0.75
    assert last["report"]["_value"] == "# The report\n"


def test_two_runs_are_two_and_the_environment_names_the_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "named"))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "ada/space")  # which is not asked
    names = [make_run(tmp_path), make_run(tmp_path, until="sft", status="failed")]
    sent = [export_run(home, name, TrackioExport(project="both")) for name in names]
    assert "TRACKIO_SPACE_ID does not" in sent[0].note
    assert sorted(run["name"] for run in runs_in(tmp_path / "named", "both")) == sorted(names)


def test_what_trackio_refuses_is_said(home: Path, tmp_path: Path) -> None:
    name = make_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportFailed, match="trackio: "):
        export_run(home, name, TrackioExport(folder=str(tmp_path / "file")))
    with pytest.raises(ExportFailed, match="ValueError: Project name 'registry-a' is not allowed"):
        export_run(home, name, TrackioExport(project="registry-a", folder=str(tmp_path / "trackio")))
