"""Schedules, on a real server: deployments that yield scheduled runs, a worker that runs one, cancelling, and `vcore
serve`."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import ConfigError
from pipeline.launch.environment import free_port
from pipeline.prefect_.clock import next_times
from pipeline.prefect_.schedule import cron_schedule
from pipeline.store.store import Store
from tests.pipeline.prefect_.helpers import command, config, environment, flow_run, start_run, wait_for
from tests.prefect_server import query


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("every night", "UTC", "--cron: 'every night' has 2 fields"),
        ("0 2 * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("0 2 * * *", "localtime", "no time zone 'localtime'"),
        ("0 2 * * *", "Europe", "no time zone 'Europe'"),
        ("0 2 * * *", "", "no time zone ''"),
        ("0 0 2 * * *", "UTC", "--cron: '0 0 2 [*] [*] [*]' has 6 fields, and a cron line has five"),
        ("0 0 2 * * * 2027", "UTC", "has 7 fields"),
        ("0 2 * *", "UTC", "has 4 fields"),
        ("daily", "UTC", "has 1 field, "),
        ("", "UTC", "has 0 fields, "),
        ("61 2 * * *", "UTC", "is no cron line"),
        ("@reboot", "UTC", "is no cron line"),
        ("0 2 31 2 *", "UTC", "names no time that ever comes"),
        ("R(0-5) 2 * * *", "UTC", "has a random time, which is drawn again"),
        ("0 r/2 * * *", "UTC", "has a random time"),
        ("H 2 * * *", "UTC", "has a random time"),
    ],
)
def test_wrong_schedules(cron: str, timezone: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cron_schedule(cron, timezone)


def test_arguments_that_can_mean_nothing_are_refused_before_a_server_starts() -> None:
    refused = CliRunner().invoke(app, ["serve", "configs/demo.yaml", "--timezone", "Europe/Berlin"])
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception).startswith("--timezone: ")
    for port in ("0", "65536"):
        assert CliRunner().invoke(app, ["serve", "configs/demo.yaml", "--port", port]).exit_code == 2


@pytest.mark.parametrize(
    ("cron", "hours"),
    [("0 2 * * *", {2}), (" 30  9 * * mon-fri ", {9}), ("@daily", {0}), ("@weekly", {0}), ("0 2 * mar thu", {2})],
)
def test_schedules_that_can_be_and_when_they_come_next(cron: str, hours: set[int]) -> None:
    times = next_times(cron_schedule(cron, "Europe/Berlin"))
    assert {time.hour for time in times} == hours
    assert len(times) == 3


@pytest.mark.slow
def test_without_a_server_or_a_pool_deploying_is_one_clear_error(tmp_path: Path, prefect_server: str) -> None:
    alone = command(tmp_path, None, "pipeline", "deploy", str(config(tmp_path)))
    assert alone.returncode == 2
    assert "a deployment needs a Prefect server" in alone.stderr
    no_pool = command(tmp_path, prefect_server, "pipeline", "deploy", str(config(tmp_path)), "--pool", "none")
    assert no_pool.returncode == 2
    assert "the server has no work pool 'none'" in no_pool.stderr
    gone = command(tmp_path, "http://127.0.0.1:9/api", "pipeline", "deploy", str(config(tmp_path)))
    assert gone.returncode == 2, gone.stderr
    assert "the Prefect server does not answer" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_deployment_yields_scheduled_runs_and_a_worker_runs_one(
    tmp_path: Path, prefect_server: str, worker: str
) -> None:
    name = "nightly-run"
    words = [
        "pipeline",
        "deploy",
        str(config(tmp_path)),
        "--cron",
        "0 2 * * *",
        "--timezone",
        "Europe/Berlin",
        "--pool",
        worker,
        "--name",
        name,
    ]
    made = command(tmp_path, prefect_server, *words)
    assert made.returncode == 0, made.stderr
    assert f"vcore/{name} on the work pool {worker}: cron 0 2 * * * (Europe/Berlin), next on " in made.stdout
    (deployment,) = query(f"{prefect_server}/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    scheduled = {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "deployments": {"id": {"any_": [deployment["id"]]}},
    }
    assert len(wait_for(lambda: query(f"{prefect_server}/flow_runs/filter", scheduled))) >= 3

    for message in ("1 stage: 1 ran, 0 cached", "1 stage: 0 ran, 1 cached; nothing has changed"):
        parameters = {"until": "data", "overrides": [*deployment["parameters"]["overrides"], "seed=5"]}
        run = start_run(prefect_server, name, parameters)
        wait_for(lambda run=run: flow_run(prefect_server, run)["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"))
        assert flow_run(prefect_server, run)["state"]["message"] == message
        assert set(flow_run(prefect_server, run)["tags"]) == {"vcore", "config:small", "seed:5", "model:make"}
    assert [program for program, _, _ in Store(tmp_path / "here").artifacts()] == ["data"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cancelling_stops_the_stage_and_leaves_it_resumable(tmp_path: Path, prefect_server: str, worker: str) -> None:
    made = command(
        tmp_path, prefect_server, "pipeline", "deploy", str(config(tmp_path)), "--pool", worker, "--name", "to-cancel"
    )
    assert made.returncode == 0, made.stderr
    run = start_run(prefect_server, "to-cancel", {"until": "base"})

    def training() -> bool:
        return any(
            "pretraining" in file.read_text() for file in (tmp_path / "here" / "work" / "base").glob("*/events.jsonl")
        )

    wait_for(training, 120)
    query(f"{prefect_server}/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def stages() -> str:
        return subprocess.run(["pgrep", "-f", f"stages.base {tmp_path}"], capture_output=True, text=True).stdout

    assert stages()
    wait_for(lambda: not stages(), 60)
    wait_for(lambda: flow_run(prefect_server, run)["state"]["type"] == "CANCELLED", 60)
    assert list(Store(tmp_path / "here").artifacts()) == [], "no half artifact"
    (record,) = (json.loads(file.read_text()) for file in (tmp_path / "here" / "runs").glob("*/run.json"))
    assert record["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_serve_brings_its_own_server_runs_and_stops(tmp_path: Path) -> None:
    port = free_port()
    words = ["pipeline", "serve", str(config(tmp_path)), "--cron", "0 2 * * *", "--port", str(port)]
    log = open(tmp_path / "serve.log", "wb")  # noqa: SIM115 - closed below
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=tmp_path, env=environment(tmp_path, None), stdout=log, stderr=log
    )
    api = f"http://127.0.0.1:{port}/api"
    try:

        def served() -> Any:
            assert process.poll() is None, (tmp_path / "serve.log").read_text()
            try:
                return query(f"{api}/deployments/filter", {})
            except OSError:
                return None

        wait_for(served, 120)
        assert (
            len(
                wait_for(
                    lambda: query(
                        f"{api}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
                    )
                )
            )
            >= 3
        )
        run = start_run(api, "small", {"until": "data"})
        wait_for(lambda: flow_run(api, run)["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"), 120)
        assert flow_run(api, run)["state"]["message"] == "1 stage: 1 ran, 0 cached"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
    wait_for(lambda: not subprocess.run(["pgrep", "-f", f"server start.*{port}"], capture_output=True).stdout, 30)
    assert [program for program, _, _ in Store(tmp_path / "here").artifacts()] == ["data"]
