"""A history of scheduled runs on the server that teams run: PostgreSQL, two workers, and a server that is killed."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.launch.environment import free_port
from pipeline.store.store import Store
from tests.pipeline.prefect_.conftest import running_worker
from tests.pipeline.prefect_.helpers import command, config, due, ended, flow_run, scheduled, wait_for
from tests.prefect_server import query, running_server

pytestmark = pytest.mark.slow
WAIT_S = 300


def programs() -> Path:
    """Where PostgreSQL's programs are: on PATH, or where Debian's package has them."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("NOT TESTED ON POSTGRESQL: it is not installed (Debian's package is called postgresql)")
    return folders[-1]


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL of the test's own, on a loopback port."""
    folder, bin_, port, password = Path(tempfile.mkdtemp()), programs(), free_port(), secrets.token_hex(8)
    (folder / "password").write_text(password)
    other: dict[str, Any] = {}
    if os.geteuid() == 0:  # whom it refuses to run as
        other = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        for path in (folder, folder / "password"):
            shutil.chown(path, "nobody", "nogroup")
    data, access = str(folder / "data"), ["-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]
    make = [bin_ / "initdb", "-D", data, "-U", "prefect", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    try:
        subprocess.run(make, cwd=folder, check=True, capture_output=True, **other)
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [bin_ / "postgres", "-D", data, "-p", str(port), *settings], cwd=folder, stdout=log, stderr=log, **other
            )
        try:
            wait_for(lambda: subprocess.run([bin_ / "pg_isready", *access], capture_output=True).returncode == 0)
            secret = {**os.environ, "PGPASSWORD": password}
            subprocess.run([bin_ / "createdb", *access, "prefect"], env=secret, check=True)
            yield f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{port}/prefect"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    finally:
        shutil.rmtree(folder)


@pytest.mark.timeout(1200)
def test_a_scheduled_history_on_postgresql_survives_the_server_and_is_shared_out_to_two_workers(
    tmp_path: Path, postgres: str
) -> None:
    port, now = free_port(), datetime.now(UTC)
    minute = (now - timedelta(minutes=20)).minute
    text = config(tmp_path).read_text().replace("4000", "200")
    deployments: dict[str, Any] = {}
    with contextlib.ExitStack() as workers:
        with running_server(tmp_path / "first", port, postgres) as (api, server):
            for seed in ("0", "1"):
                (tmp_path / f"seed{seed}.yaml").write_text(text.replace("name: small", f"name: seed{seed}"))
                words = ["--set", f"seed={seed}", "--cron", f"{minute} * * * *", "--pool", "team"]
                if seed == "0":
                    for name in ("one", "two"):
                        (tmp_path / name).mkdir()
                        workers.enter_context(running_worker(tmp_path / name, api, "team", "--limit", "1"))
                made = command(tmp_path, api, "pipeline", "deploy", f"seed{seed}.yaml", *words)
                assert made.returncode == 0, made.stderr
            for deployment in query(f"{api}/deployments/filter", {}):
                deployments[deployment["name"]] = deployment
                parameters = {**deployment["parameters"], "until": "base"}
                query(f"{api}/deployments/{deployment['id']}", {"parameters": parameters}, "PATCH")
            hour = timedelta(hours=1)
            first = [due(api, deployment, now - 2 * hour, now - hour)[0] for deployment in deployments.values()]

            def training() -> bool:
                logs = (tmp_path / "here" / "work" / "base").glob("*/events.jsonl")
                return sum("pretraining" in log.read_text() for log in logs) == 2

            wait_for(training, WAIT_S)
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        time.sleep(5)  # in which two workers and two runs find nobody
        with running_server(tmp_path / "second", port, postgres) as (api, _):
            states = [wait_for(lambda run=run: ended(api, run), WAIT_S) for run in first]
            assert [(s["name"], s["message"]) for s in states] == [("Completed", "1 stage: 1 ran, 0 cached")] * 2
            second = due(api, deployments["seed0"], now - hour, now)[0]
            state = wait_for(lambda: ended(api, second), WAIT_S)
            assert state["name"] == "Cached", state
            for deployment, runs in zip(deployments.values(), (2, 1), strict=True):
                history = scheduled(api, deployment)
                assert len({run["expected_start_time"] for run in history}) == len(history) == runs
            assert [flow_run(api, run)["run_count"] for run in (*first, second)] == [1, 1, 1]
            coming = {"state": {"type": {"any_": ["SCHEDULED"]}}}
            assert len(query(f"{api}/flow_runs/filter", {"flow_runs": coming})) >= 6, "three nights ahead for each"
    logs = [(tmp_path / name / "worker.log").read_text() for name in ("one", "two")]
    assert [sum(run in log for log in logs) for run in first] == [1, 1], "each run had one worker"
    assert all(any(run in log for run in first) for log in logs), "both workers had a run"
    assert len(list((tmp_path / "here" / "runs").iterdir())) == 3
    assert sorted(program for program, _, _ in Store(tmp_path / "here").artifacts()) == ["base", "base"]
