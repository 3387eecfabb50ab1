"""`vcore export`: which run goes where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.export import ExportSettings, MlflowExport, TrackioExport, WandbExport
from pipeline.core.errors import ConfigError
from pipeline.export.documents import Sent
from pipeline.export.process import ExportFailed
from pipeline.run.record import RunRecord
from tests.pipeline.export.runs import make_run
from tests.pipeline.helpers import config


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ExportSettings]]:
    """What is to be exported, by run and settings; no tracker is there and none is asked."""
    given: list[tuple[str, ExportSettings]] = []

    def export_run(home: Path, run: str, settings: ExportSettings) -> Sent:
        given.append((run, settings))
        return Sent(to=settings.to, where="there", run="7", url="http://there/7", metrics=3, points=1200, trouble=["a"])

    monkeypatch.setattr("pipeline.export.process.export_run", export_run)
    monkeypatch.setattr("pipeline.checks.export.installed", lambda module: True)
    return given


def export(home: Path, *arguments: object) -> str:
    result = CliRunner().invoke(app, ["export", *map(str, arguments), "--home", str(home)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_old_run_goes_where_its_config_says(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path, "export=[{to: mlflow, uri: 'http://host:5000'}, {to: trackio}]")
    said = export(tmp_path / "home", run)
    assert asked == [(run, MlflowExport(uri="http://host:5000")), (run, TrackioExport())]
    assert "exported to mlflow (there, run 7): 3 metrics, 1,200 points of curves. http://there/7" in said
    asked.clear()
    export(tmp_path / "home", "latest", "--to", "trackio")
    assert asked == [(run, TrackioExport())]


def test_options_go_before_the_config_and_the_config_before_defaults(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path, "export={to: mlflow, uri: 'http://host:5000', experiment: nights}")
    export(tmp_path / "home", run, "--uri", "sqlite:///here.db", "--time-limit", 7)
    export(tmp_path / "home", run, "--to", "wandb", "--mode", "offline", "--entity", "ada", "--project", "p")
    assert asked == [
        (run, MlflowExport(uri="sqlite:///here.db", experiment="nights", time_limit_s=7.0)),
        (run, WandbExport(mode="offline", entity="ada", project="p")),
    ]


def test_a_script_gets_json(tmp_path: Path, asked: list[Any]) -> None:
    make_run(tmp_path)
    (sent,) = json.loads(export(tmp_path / "home", "--to", "mlflow", "--json"))
    assert (sent["to"], sent["run"], sent["state"], sent["points"]) == ("mlflow", "7", "exported", 1200)
    assert sent["trouble"] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "names no tracker\nName one: vcore export "),
        (["--to", "mlfow"], "--to: there is no tracker 'mlfow'\nOne of: mlflow, wandb, trackio"),
        (
            ["--to", "mlflow", "--entity", "x"],
            "--entity: is no option of mlflow\nOptions of mlflow: --uri, --experiment",
        ),
        (["--to", "wandb", "--mode", "of"], "--mode: Input should be 'online' or 'offline'"),
        (["--to", "mlflow", "--uri", "http://a:hunter2@h"], "--uri: an address with a password"),
        (["--to", "mlflow", "--time-limit", "0"], "--time-limit: Input should be greater than 0"),
        (["nothing", "--to", "mlflow"], "there is no run 'nothing'"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, asked: list[Any], arguments: list[str], said: str) -> None:
    make_run(tmp_path)
    with pytest.raises(ConfigError) as refused:
        export(tmp_path / "home", *arguments)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert asked == []


def test_a_tracker_that_fails_keeps_none_of_the_others_from_it(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_run(home: Path, run: str, settings: ExportSettings) -> Sent:
        if settings.to == "mlflow":
            raise ExportFailed("down", where="mlflow", fix="Log: here.")
        asked.append((run, settings))
        return Sent(to=settings.to, where="there", run="7")

    monkeypatch.setattr("pipeline.export.process.export_run", export_run)
    make_run(tmp_path, "export=[{to: mlflow}, {to: trackio}]")
    with pytest.raises(ExportFailed, match=r"^mlflow: down\nLog: here\.$") as failed:
        export(tmp_path / "home")
    assert failed.value.exit_code == 1
    assert [settings.to for _, settings in asked] == ["trackio"]


def test_a_run_that_goes_on_is_refused(tmp_path: Path, asked: list[Any]) -> None:
    settings = config(tmp_path)
    settings.home_folder.mkdir()
    going_on = RunRecord.start(settings.home_folder, settings, "vcore run small.yaml", [])
    with pytest.raises(ConfigError, match="is still going on"):
        export(tmp_path / "home", going_on.folder.name, "--to", "mlflow")
    going_on.end("failed", "stop")
    export(tmp_path / "home", going_on.folder.name, "--to", "mlflow")
    assert len(asked) == 1


def test_a_tracker_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.checks.export.installed", lambda module: False)
    make_run(tmp_path)
    with pytest.raises(ConfigError, match="mlflow is not installed\npip install mlflow-skinny"):
        export(tmp_path / "home", "--to", "mlflow")
