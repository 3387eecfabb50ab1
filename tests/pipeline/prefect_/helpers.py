"""Commands on a real Prefect server, in a folder and an environment of their own, and how to ask it about runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.pipeline.helpers import CONFIG
from tests.prefect_server import query

ROOT = Path(__file__).resolve().parents[3]


def environment(tmp_path: Path, api: str | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "VCORE_"))}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))}
    return (
        kept
        | path
        | ({"PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "prefect-home")} if api is not None else {})
    )


def command(tmp_path: Path, api: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        env=environment(tmp_path, api),
        capture_output=True,
        text=True,
        timeout=240,
    )


def config(tmp_path: Path) -> Path:
    """A config whose `home` is relative: a run from elsewhere must find it all the same."""
    (tmp_path / "small.yaml").write_text(CONFIG + "home: here\nbase: {steps: 4000, min_accuracy: 0.0}\n")
    return tmp_path / "small.yaml"


def wait_for(what: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return result


def flow_run(api: str, run: str) -> dict[str, Any]:
    return query(f"{api}/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]


def start_run(api: str, deployment: str, parameters: dict[str, Any]) -> str:
    (made,) = query(f"{api}/deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
    run: Any = query(f"{api}/deployments/{made['id']}/create_flow_run", {"parameters": parameters})
    return str(run["id"])


def ended(api: str, run: str) -> dict[str, Any] | None:
    """The state that a flow run has ended in; None as long as it has not."""
    state: dict[str, Any] = flow_run(api, run)["state"]
    return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


def due(api: str, deployment: dict[str, Any], start: datetime, end: datetime) -> list[str]:
    """Have the server's scheduler make the runs that were due in between, oldest first."""
    before = {run["id"] for run in scheduled(api, deployment)}
    query(
        f"{api}/deployments/{deployment['id']}/schedule",
        {"start_time": start.isoformat(), "end_time": end.isoformat(), "min_runs": 100, "max_runs": 100},
    )
    return [run["id"] for run in scheduled(api, deployment) if run["id"] not in before]


def scheduled(api: str, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The deployment's runs that were due until now."""
    runs = query(f"{api}/flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}})
    now = datetime.now(UTC)
    past = [r for r in runs if r["auto_scheduled"] and datetime.fromisoformat(r["expected_start_time"]) < now]
    return sorted(past, key=lambda run: str(run["expected_start_time"]))
