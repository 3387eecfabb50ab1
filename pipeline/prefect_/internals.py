"""What is used of Prefect beyond its documented interface: each name once, with what relies on it.

docs/pins.md says what to do when one of them changes; tests/pipeline/prefect_/test_internals.py notices it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from pipeline.core.errors import Interrupted


def server_application() -> Any:
    """Prefect's server as an ASGI application, for the runs of one home.

    `create_app` is not documented. `ephemeral` leaves out the services that only a server with schedules needs, and
    `final` keeps the application from being made again by its own workers. The embedded server relies on it.
    """
    from prefect.server.api.server import create_app

    return create_app(ephemeral=True, final=True)


def without_heartbeat() -> dict[Any, Any]:
    """The setting that switches a flow's heartbeats off.

    A flow that is called joins its heartbeat thread, which sleeps in steps of a second: off, it saves a second a run.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY

    return {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}


@contextlib.contextmanager
def stops_as_interrupts() -> Iterator[None]:
    """Turn the exception with which Prefect answers SIGTERM inside a flow into `Interrupted`.

    `TerminationSignal` is not documented; it derives from `BaseException` alone. The exit code of a run that was
    stopped relies on it.
    """
    from prefect.exceptions import TerminationSignal

    try:
        yield
    except TerminationSignal as error:
        raise Interrupted("interrupted") from error
