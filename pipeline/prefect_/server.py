"""Prefect servers in processes of their own: one for all runs of a home, and one with UI for `vcore serve`."""

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from evaluation.harness.child_processes import wait_or_kill
from pipeline.core.errors import ConfigError
from pipeline.core.locks import open_lock, read_holder, try_lock, wait_for_lock, write_holder
from pipeline.launch.environment import free_port, python_path

DATABASE = ("prefect.db", "prefect.db-wal", "prefect.db-shm")
UNUSABLE = re.compile(
    r"not a database|malformed|already exists|no such (table|column)|duplicate column|locate revision"
)
"""What a server says of a database that no server will ever open, in contrast to a full disk or a missing right."""
LEASE, LOCK = "lease", "server.lock"
ANSWER_TIMEOUT_S = 5.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
POLL_SECONDS = 0.1
MOST_SILENT = 2
"""How often a server that had answered may not answer: the lock of one that was killed is free by then."""
_leases: list[TextIO] = []


class ServerUnavailable(Exception):
    """The home has no Prefect server, and none can be started: why."""


class _NotStarted(Exception):
    """What became of a server that was started, as far as it is known: `ended with code 1, see LOG`."""


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


def take_lease(home: Path) -> None:
    """Keep the server of Prefect's home in `home` from ending, until this process ends."""
    home.mkdir(parents=True, exist_ok=True)
    _leases.append(open_lock(home / LEASE))
    wait_for_lock(_leases[-1], shared=True)  # a server that is about to end holds it alone


def home_server(home: Path, *, own: bool) -> str:
    """The API address of the one server of a home: that which another run or `vcore serve` has started, else a new one.

    The server holds the lock of the home as long as it lives, and ends by itself when nobody holds a lease any more:
    the kernel frees both, however a process ends.

    Args:
        own: whether this project made the home: then a database that no server can open is set aside, and a new one
            begun.

    Raises:
        ServerUnavailable: none starts, it does not answer, or it is another machine's.
    """
    take_lease(home)
    with open_lock(home / LOCK) as lock:
        address = _other_server(lock, home)
        if address is not None:
            return address
        log = home / "server.log"
        said = log.stat().st_size if log.is_file() else 0
        try:
            server = _start_embedded(home, lock)
        except _NotStarted as error:
            if not own or not UNUSABLE.search(_text_from(log, said)) or not _alone():
                raise ServerUnavailable(f"the home's server {error}") from error
            aside = home / f"damaged-{time.time_ns()}"
            aside.mkdir()
            for name in DATABASE:
                if (home / name).is_file():
                    os.rename(home / name, aside / name)
            try:
                server = _start_embedded(home, lock)
            except _NotStarted as again:
                raise ServerUnavailable(f"the home's server {again}") from again
        write_holder(lock, f"{read_holder(lock)} ready")
        return server.address


def _other_server(lock: TextIO, home: Path) -> str | None:
    """The address of the server that holds the home's lock; None where the lock was free, and is ours now."""
    deadline = time.monotonic() + START_TIMEOUT_S
    silent = 0
    while not try_lock(lock):
        host, address, ready = (*read_holder(lock).split(" "), "", "", "")[:3]
        if host not in ("", socket.gethostname()):
            raise ServerUnavailable(f"the server of {home} runs on {host}")
        if address and health(address) == 200:
            return address
        silent += bool(ready)
        if silent == MOST_SILENT or time.monotonic() > deadline:
            raise ServerUnavailable(f"the server of {home} does not answer")
        time.sleep(POLL_SECONDS)
    return None


def _alone() -> bool:
    """Whether nobody else uses the home."""
    if try_lock(_leases[-1]):
        return True
    wait_for_lock(_leases[-1], shared=True)
    return False


def _text_from(file: Path, offset: int) -> str:
    with open(file, "rb") as handle:
        handle.seek(offset)
        return handle.read().decode(errors="replace")


def _start_embedded(home: Path, lock: TextIO) -> Server:
    port = free_port()
    write_holder(lock, f"{socket.gethostname()} http://127.0.0.1:{port}/api")
    command = [sys.executable, "-P", "-m", "pipeline.prefect_.embedded", str(port), str(home / LEASE)]
    environment = {"PREFECT_HOME": str(home), "PYTHONPATH": python_path()}
    return _start(command, port, environment, home / "server.log", (lock.fileno(),))


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
    take_lease(folder)
    lock = open_lock(folder / LOCK)  # with it, runs in this home use this server
    with contextlib.suppress(ServerUnavailable):
        if _other_server(lock, folder) is None:
            write_holder(lock, f"{socket.gethostname()} {address}")
    log = folder / "server.log"
    say(f"starting a Prefect server with its UI at http://127.0.0.1:{port} (database and log in {folder})")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    dies_with_us = [sys.executable, "-P", "-m", "pipeline.launch.commands", str(os.getpid())]
    # The UI runs in the browser and would look for port 4200.
    try:
        server = _start([*dies_with_us, *command], port, {"PREFECT_UI_API_URL": address}, log)
    except _NotStarted as error:
        raise ConfigError(f"the Prefect server {error}", where="--port", fix="Another --port may help.") from error
    try:
        os.environ["PREFECT_API_URL"] = address  # for the processes that runs are started in
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        server.stop()
        lock.close()


def _start(
    command: list[str], port: int, environment: dict[str, str], log: Path, locks: tuple[int, ...] = ()
) -> Server:
    """Start a server in a session of its own and wait until it answers. Raises `_NotStarted` where it ends instead, or
    takes too long.

    Args:
        command: serves Prefect's API on `port`.
        environment: what is added to this process's own.
        log: gets all its output.
        locks: descriptors that it keeps open.
    """
    said = log.stat().st_size if log.is_file() else 0
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
            pass_fds=locks,
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
    code = process.poll()
    server.stop()
    if code is None:
        what = f"does not answer {START_TIMEOUT_S:.0f} s after its start (is the machine busy?)"
    else:
        what = f"ended with code {code} before it answered"
    raise _NotStarted(f"{what}, see {log}" if log.stat().st_size > said else what)


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
