"""A Prefect server for `vcore serve`: the one that is set up, or one of our own with scheduler and UI, below
HOME/prefect."""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.prefect_.server_process import is_healthy, start_server


@contextlib.contextmanager
def running_server(home: Path, port: int, say: Callable[[str], None]) -> Iterator[str]:
    """The API address of a server: the one that PREFECT_API_URL or a profile names, else one that is started here and
    ends with the context.

    Raises `ConfigError` where the named server does not answer, `port` is taken, or the server does not start.
    """
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    address = get_current_settings().api.url
    if address is not None:
        with unreachable_as_error(), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            answer.read()
        yield address
        return
    address = f"http://127.0.0.1:{port}/api"
    if is_healthy(address):
        raise ConfigError(
            f"something answers at {address} already",
            where="--port",
            fix=f"If it is your server: PREFECT_API_URL={address}; else another --port.",
        )
    folder = get_current_settings().home
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    say(f"starting a Prefect server with its UI at http://127.0.0.1:{port} (database and log in {folder})")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    dies_with_us = [sys.executable, "-P", "-m", "pipeline.launch.commands", str(os.getpid())]
    # The UI runs in the browser and would look for port 4200.
    server = start_server([*dies_with_us, *command], port, {"PREFECT_UI_API_URL": address}, log)
    if server is None:
        fix = "See the end of that log; another --port may help."
        raise ConfigError("the Prefect server does not start", where=str(log), fix=fix)
    try:
        os.environ["PREFECT_API_URL"] = address  # for the processes that runs are started in
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        server.stop()


@contextlib.contextmanager
def unreachable_as_error() -> Iterator[None]:
    """Turn what a server that does not answer raises into one `ConfigError`."""
    import httpx

    try:
        yield
    except (OSError, httpx.TransportError) as error:
        message = f"the Prefect server does not answer ({type(error).__name__})"
        where = f"PREFECT_API_URL={os.environ.get('PREFECT_API_URL', '')}"
        fix = "Start it (prefect server start), or correct the address."
        raise ConfigError(message, where=where, fix=fix) from error
