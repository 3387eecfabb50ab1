"""A Prefect server for `vcore serve`: the one that is set up, or one of our own with scheduler and UI, below HOME/prefect."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.core.errors import ConfigError

START_TIMEOUT_S = 120.0


@contextlib.contextmanager
def running_server(home: Path, port: int, say: Callable[[str], None]) -> Iterator[str]:
    """The API address of a server: the one that PREFECT_API_URL or a profile names, else one that is started here and ends with us."""
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    address = get_current_settings().api.url
    if address is not None:
        with told():
            _healthy(address)
        yield address
        return
    address = f"http://127.0.0.1:{port}/api"
    with contextlib.suppress(OSError):
        _healthy(address)
        raise ConfigError(
            f"something answers at {address} already",
            where="--port",
            fix=f"If it is your server: PREFECT_API_URL={address}; else another --port.",
        )
    folder = get_current_settings().home
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    words = [sys.executable, "-P", "-m", "pipeline.launch.commands", str(os.getpid())]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PREFECT_UI_API_URL": address,
    }  # the UI runs in the browser and would look for port 4200
    say(f"starting a Prefect server with its UI at http://127.0.0.1:{port} (database and log in {folder})")
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [*words, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ConfigError(
                    "the Prefect server does not start",
                    where=str(log),
                    fix="See the end of that log; another --port may help.",
                )
            with contextlib.suppress(OSError):
                _healthy(address)
                break
            time.sleep(0.2)
        os.environ["PREFECT_API_URL"] = address  # for the processes that runs are started in
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(address: str) -> None:
    """Raise `OSError` unless a server answers."""
    with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        answer.read()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A server that does not answer, as one clear error."""
    import httpx

    try:
        yield
    except (OSError, httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "API" not in str(error):
            raise
        raise ConfigError(
            f"the Prefect server does not answer ({type(error).__name__})",
            where=f"PREFECT_API_URL={os.environ.get('PREFECT_API_URL', '')}",
            fix="Start it (prefect server start), or correct the address.",
        ) from error
