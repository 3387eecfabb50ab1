"""The Prefect flow: the pipeline's stages as tasks, in running order.

Prefect gives states, logs, schedules and a UI; the artifact store alone decides what is computed (every task has NO_CACHE). Without
PREFECT_API_URL an embedded server with SQLite below HOME/prefect is used (pipeline/embedded.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.embedded import start_embedded_server
from pipeline.errors import UserError

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
        defaults["PREFECT_SERVER_LOGGING_LEVEL"] = "CRITICAL"
        defaults["PREFECT_LOGGING_INTERNAL_LEVEL"] = "CRITICAL"
        defaults["PREFECT_CLIENT_MAX_RETRIES"] = "2"  # of 5: an embedded server that does not answer at once was killed
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def run_flow(session: Session) -> None:
    """Run a prepared session as a Prefect flow. Raises the session's own `UserError` when a stage fails or the run is stopped.

    Without PREFECT_API_URL an embedded server records the run. If that server cannot be started or is killed, the run says so and goes
    on without it: the store alone decides what is computed.
    """
    prepare_environment(session.store.home)
    from prefect.settings import PREFECT_API_URL, get_current_settings

    if get_current_settings().api.url is not None:  # by the environment, or by a profile in a PREFECT_HOME that is set
        _run_recorded(session, {})
        return
    say = session.executor.view.line
    home = get_current_settings().home
    server = start_embedded_server(home, say, own=home == session.store.home / "prefect")
    if server is not None:
        try:
            _run_recorded(session, {PREFECT_API_URL: server.address})
        except UserError:
            raise
        except Exception as error:
            if server.alive:
                raise
            say(f"[yellow]the embedded Prefect server was ended ({type(error).__name__}); the run goes on without its record[/]")
    session.run_remaining()


def _run_recorded(session: Session, settings: dict[Any, Any]) -> None:
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.states import Completed

    errors: list[BaseException] = []

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
    with temporary_settings({**settings, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = pipeline(return_state=True)
    if errors:
        raise errors[0]
    if not state.is_completed():
        state.result(raise_on_failure=True)
