"""A run and its trackers: what becomes of the run when a tracker refuses, hangs, dies or talks too much.

The trackers here are stand-ins for their packages, so that these tests need none; the process that exports, the run and
its record are real.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from pipeline.core.errors import StageFailed
from pipeline.plan.decide import Options
from pipeline.prefect_.run import run as run_session
from pipeline.run.record import load_run
from pipeline.run.session import Session
from pipeline.run.view import View
from tests.pipeline import helpers

DOWN = """
raise ConnectionError("connection refused: http://ada:hunter2@host:5000\\nMax retries exceeded")
"""
HANGS = """
import os, pathlib, subprocess, time
helper = subprocess.Popen(["sleep", "600"], start_new_session=True)  # as a helper service that wandb starts
pathlib.Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {helper.pid}")
time.sleep(600)
"""
DIES = """
import os
os.write(1, b"what it prints is no answer")
os._exit(7)
"""
TALKS = """
import os
print("logging in with", os.environ["MLFLOW_TRACKING_PASSWORD"], "at http://ada:hunter2@host")
raise RuntimeError("401 for " + os.environ["MLFLOW_TRACKING_PASSWORD"])
"""


class Ran:
    """A run of which every stage is cached, and what it printed."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder, self.said = folder, io.StringIO()
        helpers.make(folder)
        sets = [f"home={folder / 'home'}", *overrides]
        view = View(Console(file=self.said, width=1000))
        self.session = Session.prepare(folder / "small.yaml", sets, Options(), view)

    def run(self) -> Ran:
        run_session(self.session)
        return self

    @property
    def lines(self) -> list[str]:
        return self.said.getvalue().splitlines()

    @property
    def status(self) -> str:
        return load_run(self.session.record.folder).status


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package `mlflow` that comes before any that is installed."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    package = tmp_path / "packages/mlflow"
    package.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(package.parent)
    (package / "__init__.py").write_text("")
    return package / "__init__.py"


@pytest.mark.slow
def test_a_tracker_that_is_down_costs_a_finished_run_nothing(tmp_path: Path, tracker: Path) -> None:
    tracker.write_text(DOWN)
    ran = Ran(tmp_path, "export=mlflow").run()
    run = ran.session.record.data.id
    assert ran.status == "done"
    (line,) = [line for line in ran.lines if line.startswith("not exported")]
    assert "not exported, mlflow: ConnectionError: connection refused: http://***@host:5000." in line
    assert "The run itself is recorded as done" in line
    assert line.endswith(f"to export it: vcore export {run} --to mlflow --home {tmp_path / 'home'}")
    log = (ran.session.record.folder / "export-mlflow.log").read_text()
    assert "Max retries exceeded" in log
    assert "hunter2" not in log


@pytest.mark.slow
def test_a_tracker_that_hangs_is_given_up_with_all_that_it_started(
    tmp_path: Path, tracker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.write_text(HANGS)
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    ran = Ran(tmp_path, "export={to: mlflow, time_limit_s: 30}").run()
    assert ran.status == "done"
    (line,) = [line for line in ran.lines if line.startswith("not exported")]
    assert "mlflow: no answer within 30 s. time_limit_s sets how long." in line
    for pid in (tmp_path / "pids").read_text().split():
        assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_tracker_that_ends_its_process_is_said(tmp_path: Path, tracker: Path) -> None:
    tracker.write_text(DIES)
    ran = Ran(tmp_path, "export=mlflow").run()
    assert ran.status == "done"
    assert "mlflow: its process ended with code 7 and no answer." in ran.said.getvalue()
    assert "what it prints is no answer" in (ran.session.record.folder / "export-mlflow.log").read_text()


@pytest.mark.slow
def test_no_secret_reaches_the_screen_or_a_file(tmp_path: Path, tracker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker.write_text(TALKS)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse")
    ran = Ran(tmp_path, "export=mlflow").run()
    assert "RuntimeError: 401 for ***" in ran.said.getvalue()
    written = [file.read_bytes() for file in (tmp_path / "home/runs").rglob("*") if file.is_file()]
    assert any(b"logging in with *** at http://***@host" in text for text in written)
    for text in (ran.said.getvalue().encode(), *written):
        assert b"correct-horse" not in text
        assert b"hunter2" not in text


@pytest.mark.slow
def test_a_run_that_failed_is_exported_and_fails_as_it_did(
    tmp_path: Path, tracker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.write_text(DOWN)
    ran = Ran(tmp_path, "export=mlflow")

    def fail(self: Session) -> None:
        raise StageFailed("grpo", "out of memory")

    monkeypatch.setattr(Session, "run_remaining", fail)
    with pytest.raises(StageFailed, match="out of memory") as failed:
        ran.run()
    assert failed.value.continue_with.startswith("vcore run ")
    assert ran.status == "failed"
    assert "The run itself is recorded as failed" in ran.said.getvalue()


def test_a_run_that_was_stopped_is_not_exported_and_the_command_for_it_is_said(
    tmp_path: Path, tracker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.write_text(HANGS)
    ran = Ran(tmp_path, "export=mlflow")

    def stop(self: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run_remaining", stop)
    with pytest.raises(KeyboardInterrupt):
        ran.run()
    assert ran.status == "interrupted"
    assert "not exported to mlflow, since the run was stopped; to do it: vcore export" in ran.said.getvalue()


def test_stopping_the_export_leaves_the_run_as_it_is(
    tmp_path: Path, tracker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran(tmp_path, "export=[{to: mlflow}, {to: mlflow, uri: other}]")

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.export.after_run.export_run", stop)
    ran.run()
    assert ran.status == "done"
    assert "stopped exporting" in ran.lines[-1]


def test_a_run_without_trackers_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pipeline.export.after_run.export_run", never)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    ran = Ran(tmp_path).run()
    assert ran.status == "done"
    assert not os.path.lexists(ran.session.record.folder / "export-mlflow.log")
