"""What becomes of scheduled runs that overlap, and of those that were missed: on a real server, with a real worker."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.prefect_.turn import turn
from tests.pipeline.prefect_.helpers import command, config, due, ended, flow_run, start_run, wait_for
from tests.prefect_server import query

WAIT_S = 240


@pytest.mark.parametrize(
    ("overlap", "missed", "message"),
    [
        ("both", "skip", "overlap: 'both' is none of skip, queue"),
        ("skip", "all", "missed: 'all' is none of skip, catch_up_once"),
    ],
)
def test_a_choice_that_is_none_is_refused(tmp_path: Path, overlap: str, missed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), turn(tmp_path, overlap, missed):
        pass


def deployed(tmp_path: Path, api: str, pool: str, name: str, cron: str, *words: str) -> dict[str, Any]:
    """A deployment whose runs do no more than the data stage."""
    options = ["--pool", pool, "--name", name, "--cron", cron, *words]
    made = command(tmp_path, api, "pipeline", "deploy", str(config(tmp_path)), *options)
    assert made.returncode == 0, made.stderr
    (deployment,) = query(f"{api}/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    deployment["said"] = re.sub(r"\s+", " ", made.stdout)
    set_parameters(api, deployment, until="data")
    return deployment


def set_parameters(api: str, deployment: dict[str, Any], **parameters: str) -> None:
    deployment["parameters"] |= parameters
    query(f"{api}/deployments/{deployment['id']}", {"parameters": deployment["parameters"]}, "PATCH")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_the_runs_that_were_missed_the_newest_is_caught_up_or_none(
    tmp_path: Path, prefect_server: str, worker: str
) -> None:
    now = datetime.now(UTC)
    hourly = f"{(now - timedelta(minutes=20)).minute} * * * *"
    for missed, names in (("catch_up_once", ["Skipped", "Completed"]), ("skip", ["Skipped"])):
        name = f"missed-{missed}"
        deployment = deployed(tmp_path, prefect_server, worker, name, hourly, "--missed", missed)
        runs = due(prefect_server, deployment, now - timedelta(hours=len(names)), now)
        assert len(runs) == len(names)
        states = [wait_for(lambda run=run: ended(prefect_server, run), WAIT_S) for run in runs]
        assert [state["name"] for state in states] == names, states
        assert [state["type"] == "CANCELLED" for state in states] == [name == "Skipped" for name in names]
        reason = "a newer run at" if missed == "catch_up_once" else "could begin at"
        assert re.match(rf"missed: it was due at \d.* UTC, and {reason} \d.* UTC$", states[0]["message"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_overlaps_is_skipped_or_waits_for_its_turn(tmp_path: Path, prefect_server: str, worker: str) -> None:
    now = datetime.now(UTC)
    hour, hourly = timedelta(hours=1), f"{(now - timedelta(minutes=20)).minute} * * * *"
    deployment = deployed(tmp_path, prefect_server, worker, "overlaps", hourly)
    assert "A scheduled run is skipped while another one goes on; of what could not begin" in deployment["said"]
    long = start_run(prefect_server, "overlaps", {"until": "base"})

    def holder() -> str:
        lock = tmp_path / "here" / "locks" / f"deployment.{deployment['id']}.lock"
        return lock.read_text() if lock.is_file() else ""

    assert re.match(r"vcore/small/\w{8}, since \d{4}", wait_for(holder, WAIT_S))
    [first] = due(prefect_server, deployment, now - 2 * hour, now - hour)
    state = wait_for(lambda: ended(prefect_server, first), WAIT_S)
    assert (state["type"], state["name"]) == ("CANCELLED", "Skipped"), state
    assert state["message"] == f"the run before it is going on: {holder()}"

    set_parameters(prefect_server, deployment, overlap="queue")
    before = holder()
    [second] = due(prefect_server, deployment, now - hour, now)
    about_run = {"logs": {"flow_run_id": {"any_": [second]}}}
    wait_for(lambda: f"waits for {before}" in str(query(f"{prefect_server}/logs/filter", about_run)), WAIT_S)
    assert flow_run(prefect_server, second)["state"]["type"] == "RUNNING"
    query(f"{prefect_server}/flow_runs/{long}/set_state", {"state": {"type": "CANCELLING"}})
    assert wait_for(lambda: ended(prefect_server, second), 150)["message"] == "1 stage: 1 ran, 0 cached"
    assert wait_for(lambda: ended(prefect_server, long), WAIT_S)["type"] == "CANCELLED"
