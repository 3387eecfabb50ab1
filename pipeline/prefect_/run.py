"""Running a session as a Prefect flow, on the server that is set up, or on an embedded one.

The flow itself is in pipeline/prefect_/flow.py. Without PREFECT_API_URL an embedded server with SQLite below
HOME/prefect is used (pipeline/prefect_/server.py).
"""

import os
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError, UserError
from pipeline.prefect_.internals import stops_as_interrupts, without_heartbeat
from pipeline.prefect_.server import health, start_embedded_server
from pipeline.run.session import Session


def prepare_environment(home: Path) -> None:
    """Settings Prefect reads at import: quiet console, no analytics, and a home of its own unless a server or a home is
    given."""
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


def run(session: Session) -> None:
    """Make or find every stage: as a Prefect flow, or, when all is cached and no server is set up to record it,
    without."""
    with session.recorded():
        if session.nothing_to_do and "PREFECT_API_URL" not in os.environ:
            session.run_remaining()
        else:
            run_flow(session)
        session.finish()


def run_flow(session: Session) -> None:
    """Run a prepared session as a Prefect flow. Raises the session's own `UserError` when a stage fails or the run is
    stopped.

    Without PREFECT_API_URL an embedded server records the run. If the server, ours or another, is gone in the middle of
    a run, or ours cannot be started, the run says so and goes on without it: the store alone decides what is computed.
    A server that is named and does not answer from the start is a `ConfigError`.
    """
    prepare_environment(session.store.home)
    from prefect.settings import PREFECT_API_URL, get_current_settings

    say = session.executor.view.line
    address, home = get_current_settings().api.url, get_current_settings().home
    settings: dict[Any, Any] = {}
    if address is not None:  # by the environment, or by a profile in a PREFECT_HOME that is set
        if health(address) is None:
            fix = "Start it (prefect server start), or unset PREFECT_API_URL for a server of the run's own."
            raise ConfigError(f"the Prefect server at {address} does not answer", where="PREFECT_API_URL", fix=fix)
    else:
        server = start_embedded_server(home, say, own=home == session.store.home / "prefect")
        address, settings = (server.address, {PREFECT_API_URL: server.address}) if server is not None else (None, {})
    if address is not None:
        try:
            _run_recorded(session, settings)
        except UserError:
            raise
        except Exception as error:
            if health(address) is not None:
                raise
            say(f"[yellow]the Prefect server is gone ({type(error).__name__}); the run goes on without its record[/]")
    session.run_remaining()


def _run_recorded(session: Session, settings: dict[Any, Any]) -> None:
    from prefect import tags
    from prefect.settings import temporary_settings

    from pipeline.prefect_.flow import flow_of

    errors: list[BaseException] = []
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
    with temporary_settings({**settings, **without_heartbeat()}), tags(*session.config.tags), stops_as_interrupts():
        state = flow_of(session, errors)(**parameters, return_state=True)
    if errors:
        raise errors[0]
    if not state.is_completed():
        state.result(raise_on_failure=True)
