"""The Prefect flow: the pipeline's stages as tasks, in running order.

Prefect gives states, logs, schedules and a UI; the artifact store alone decides what is computed (every task has NO_CACHE). Without
PREFECT_API_URL Prefect starts its embedded server with SQLite below HOME/prefect; `prepare_environment` must run before Prefect is
imported.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.graph import Stage
    from pipeline.session import Session


def prepare_environment(home: Path) -> None:
    """Settings Prefect reads at import: quiet console, no analytics, and a home of its own unless a server or a home is given."""
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_CLI_COLORS": "false",
    }
    if "PREFECT_API_URL" not in os.environ and "PREFECT_HOME" not in os.environ:
        defaults["PREFECT_HOME"] = str(home.resolve() / "prefect")
        defaults["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
        defaults["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
        defaults["PREFECT_SERVER_LOGGING_LEVEL"] = "CRITICAL"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def start_embedded_server() -> None:
    """Start the server that Prefect would start for itself, where none is configured, in a session of its own.

    In the terminal's process group, as Prefect starts it, Ctrl-C ends it before this process has told it how the run ended, and the
    client then waits for minutes for a server that is gone. It still ends with this process (Prefect registers that).
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return
    ordinary = subprocess.Popen
    subprocess.Popen = functools.partial(ordinary, start_new_session=True)  # type: ignore[assignment,misc]
    try:
        SubprocessASGIServer().start()
    finally:
        subprocess.Popen = ordinary  # type: ignore[misc]


def run_flow(session: Session) -> None:
    """Run a prepared session as a Prefect flow. Raises the session's own `UserError` when a stage fails or the run is stopped."""
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.states import Completed

    errors: list[BaseException] = []
    start_embedded_server()

    def as_task(stage: Stage) -> State[Any]:
        @task(name=stage.name, task_run_name=stage.name, cache_policy=NO_CACHE, persist_result=False, retries=0)
        def run_stage() -> State[Any]:
            try:
                outcome = session.run_stage(stage)
            except BaseException as error:
                errors.append(error)
                raise
            name = "Cached" if outcome.state == "cached" else "Completed"
            return Completed(name=name, message=f"{outcome.state} {outcome.artifact.key[:12]}", data=outcome.as_json())

        return run_stage(return_state=True)

    @flow(
        name="vcore", flow_run_name=f"{session.config.name}/{session.record.folder.name}", persist_result=False, validate_parameters=False
    )
    def pipeline() -> State[Any]:
        for stage in session.stages:
            state = as_task(stage)
            if not state.is_completed():
                return state
        report = session.report_folder
        if report is not None:
            markdown = (report / "report.md").read_text(encoding="utf-8")
            create_markdown_artifact(markdown, key="vcore-report", description=f"Report of {session.config.name}")
        return Completed(message=session.summary())

    # A sync flow joins its heartbeat thread, which sleeps in steps of a second: off, it saves a second a run.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = pipeline(return_state=True)
    if errors:
        raise errors[0]
    if not state.is_completed():
        state.result(raise_on_failure=True)
