"""Prefect servers in processes of their own: an embedded one that records a run, and one with UI for `vcore serve`."""

import atexit
import contextlib
import dataclasses
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from evaluation.harness.child_processes import wait_or_kill
from pipeline.core.errors import ConfigError
from pipeline.launch.environment import free_port, python_path

DATABASE = ("prefect.db", "prefect.db-wal", "prefect.db-shm")
ANSWER_TIMEOUT_S = 10.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server: its API address and its process."""

    address: str
    process: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the server and wait for its end."""
        self.process.terminate()
        wait_or_kill(self.process, STOP_TIMEOUT_S)


def start_embedded_server(home: Path, say: Callable[[str], None], *, own: bool) -> Server | None:
    """Start a server on a free port with Prefect's home in `home`, or say that it does not start and return None.

    It ends when this process does, after what Prefect still has to send at exit, and however this process ends.
    A database of our `own` that a killed server left unusable is set aside, and the server tried once more.
    """
    home.mkdir(parents=True, exist_ok=True)
    server = _start_embedded(home)
    if server is None and own and (home / DATABASE[0]).is_file():
        aside = home / f"damaged-{time.time_ns()}"
        aside.mkdir()
        for name in DATABASE:
            if (home / name).is_file():
                os.rename(home / name, aside / name)
        say(f"[yellow]the embedded Prefect server did not start; its database is set aside in {aside}[/]")
        server = _start_embedded(home)
    if server is None:
        log = f"(log: {home / 'server.log'})"
        say(f"[yellow]the embedded Prefect server does not start {log}; this run is not recorded there[/]")
        return None
    atexit.register(server.stop)
    return server


def _start_embedded(home: Path) -> Server | None:
    port = free_port()
    command = [sys.executable, "-P", "-m", "pipeline.prefect_.embedded", str(port), str(os.getpid())]
    return _start(command, port, {"PREFECT_HOME": str(home), "PYTHONPATH": python_path()}, home / "server.log")


@contextlib.contextmanager
def running_server(port: int, say: Callable[[str], None]) -> Iterator[str]:
    """The API address of a server: the one that PREFECT_API_URL or a profile names, else one that is started here, with
    scheduler, UI and Prefect's home, and ends with the context.

    Raises `ConfigError` where the named server does not answer, `port` is taken, or the server does not start.
    """
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    address = get_current_settings().api.url
    if address is not None:
        with unreachable_as_error():
            urllib.request.urlopen(f"{address}/health", timeout=ANSWER_TIMEOUT_S).close()
        yield address
        return
    address = f"http://127.0.0.1:{port}/api"
    if health(address) == 200:
        fix = f"If it is your server: PREFECT_API_URL={address}; else another --port."
        raise ConfigError(f"something answers at {address} already", where="--port", fix=fix)
    folder = get_current_settings().home
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    say(f"starting a Prefect server with its UI at http://127.0.0.1:{port} (database and log in {folder})")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    dies_with_us = [sys.executable, "-P", "-m", "pipeline.launch.commands", str(os.getpid())]
    # The UI runs in the browser and would look for port 4200.
    server = _start([*dies_with_us, *command], port, {"PREFECT_UI_API_URL": address}, log)
    if server is None:
        fix = "See the end of that log; another --port may help."
        raise ConfigError("the Prefect server does not start", where=str(log), fix=fix)
    try:
        os.environ["PREFECT_API_URL"] = address  # for the processes that runs are started in
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        server.stop()


def _start(command: list[str], port: int, environment: dict[str, str], log: Path) -> Server | None:
    """Start a server in a session of its own and wait until it answers; None where it ends instead, or takes too long.

    Args:
        command: serves Prefect's API on `port`.
        environment: what is added to this process's own.
        log: gets all its output.
    """
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}/api", process)
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while server.alive and time.monotonic() < deadline:
            if health(server.address) == 200:
                return server
            time.sleep(POLL_SECONDS)
    except BaseException:
        server.stop()
        raise
    server.stop()
    return None


def health(address: str) -> int | None:
    """The HTTP status with which a server answers at an API address; None where none does."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=ANSWER_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


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
