"""Running a session as a Prefect flow, on the server that is set up, or on an embedded one.

The flow itself is in pipeline/prefect_flows/vcore.py. Without PREFECT_API_URL an embedded server with SQLite below HOME/prefect is used
(pipeline/embedded.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.embedded import start_embedded_server
from pipeline.errors import UserError

if TYPE_CHECKING:
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
    from prefect import tags
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from pipeline.prefect_flows import vcore

    vcore.handed_over[:] = [session]
    vcore.errors.clear()
    options = session.options
    parameters = {
        "config": str(session.path),
        "overrides": list(session.overrides),
        "force": list(options.force),
        "start": options.start,
        "only": options.only,
        "until": options.until,
        "triggers": ",".join(options.triggers),
    }
    # A sync flow joins its heartbeat thread, which sleeps in steps of a second: off, it saves a second a run.
    with temporary_settings({**settings, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), tags(*session.tags):
        state = vcore.vcore(**parameters, return_state=True)
    if vcore.errors:
        raise vcore.errors[0]
    if not state.is_completed():
        state.result(raise_on_failure=True)
