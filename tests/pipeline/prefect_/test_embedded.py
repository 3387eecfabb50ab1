"""The Prefect server of a home: one for all runs, which outlives none of them, and whose database may be damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.run.record import list_runs
from tests.kill.test_kill import start, wait_until_all_ended, whole_artifacts

ROOT = Path(__file__).resolve().parents[3]
JOIN = """
import sys, time
from pathlib import Path
from pipeline.prefect_.server import home_server
print(home_server(Path(sys.argv[1]), own=True), flush=True)
time.sleep(120)
"""
pytestmark = pytest.mark.slow


def join(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", JOIN, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def address(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline()


def kill(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.communicate()


def test_runs_share_one_server_until_the_last_is_killed(tmp_path: Path) -> None:
    runs = [join(tmp_path) for _ in range(3)]  # started together, on no database
    (one,) = {address(run) for run in runs}
    assert one.startswith("http://127.0.0.1:")
    kill(runs[0])
    later = join(tmp_path)
    assert address(later) == one
    for run in (*runs[1:], later):
        assert wait_until_all_ended(tmp_path, 0)
        kill(run)
    assert not wait_until_all_ended(tmp_path, 20)
    assert not list(tmp_path.glob("damaged-*"))


def test_after_a_server_that_was_killed_the_next_run_starts_one(tmp_path: Path) -> None:
    first = join(tmp_path)
    one = address(first)
    (server,) = [pid for pid, kind in wait_until_all_ended(tmp_path, 0).items() if kind == "server"]
    os.kill(server, signal.SIGKILL)
    second = join(tmp_path)
    two = address(second)
    assert two.startswith("http://127.0.0.1:")
    assert two != one
    kill(first)
    kill(second)


def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    first = join(tmp_path)
    address(first)
    (server,) = [pid for pid, kind in wait_until_all_ended(tmp_path, 0).items() if kind == "server"]
    os.kill(server, signal.SIGSTOP)
    second = join(tmp_path)
    assert second.wait(30) == 1
    assert address(second) == ""
    os.kill(server, signal.SIGKILL)
    kill(first)
    kill(second)


@pytest.mark.parametrize("damage", [b"no database" * 1000, b""])
def test_a_damaged_database_is_set_aside_unless_others_use_the_home(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "prefect.db").write_bytes(damage)
    run = join(tmp_path)
    assert address(run)
    kill(run)
    aside = list(tmp_path.glob("damaged-*/prefect.db"))
    assert [file.read_bytes() for file in aside] == ([damage] if damage else []), "an empty file is a new database"


def test_first_runs_started_together_all_end_well(tmp_path: Path) -> None:
    for pair in range(int(os.environ.get("VCORE_FIRST_PAIRS", "1"))):
        home = tmp_path / f"home{pair}"
        runs = [start(home, True), start(home, True)]
        assert [run.wait(180) for run in runs] == [0, 0], home.with_suffix(".log").read_text()
        log = home.with_suffix(".log").read_text()
        assert "Prefect does not have" not in log, log
        assert "Traceback" not in log
        assert [run.status for run in list_runs(home)] == ["done", "done"]
        assert len(whole_artifacts(home)) == 4
        assert not wait_until_all_ended(home, 25)


def test_a_run_that_is_killed_takes_its_recorder_along(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = start(home, True)
    deadline = time.monotonic() + 60
    while "recorder" not in wait_until_all_ended(home, 0).values() and time.monotonic() < deadline:
        time.sleep(0.1)
    run.kill()
    run.wait()
    assert not wait_until_all_ended(home, 40)
    assert start(home, True).wait(180) == 0, home.with_suffix(".log").read_text()
