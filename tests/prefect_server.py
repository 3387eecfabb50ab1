"""One real Prefect server for the tests of a session, and how to ask it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.launch.environment import free_port


def query(url: str, body: dict[str, Any], method: str = "POST") -> list[dict[str, Any]]:
    """Ask the server, or have it change something (`PATCH`); again where its database is locked for a moment (503), as
    Prefect's own client does."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    for attempt in range(6):
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                rows: list[dict[str, Any]] = json.loads(answer.read() or "[]")
            return rows
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == 5:
                raise
            time.sleep(2)
    raise AssertionError("the last attempt returns or raises")


def end_group(process: subprocess.Popen[bytes], signum: int, seconds: float) -> None:
    """Ask a process that leads a session, and its children, to end; kill them after so many seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signum)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def running_server(
    folder: Path, port: int | None = None, database: str | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real Prefect server: its API address, and its process.

    Args:
        folder: for its log, and its database where `database` is None; else that is a URL of SQLAlchemy's.
        port: None: a free one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    named = {"PREFECT_API_DATABASE_CONNECTION_URL": database} if database is not None else {}
    environment = (
        os.environ
        | named
        | {
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
    )
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    with open(folder / "server.log", "ab") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    api = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{api}/health", timeout=2)
                break
            except OSError:
                assert server.poll() is None, "the Prefect server ended"
                assert time.monotonic() < deadline, "the Prefect server did not start"
                time.sleep(0.5)
        yield api, server
    finally:
        end_group(server, signal.SIGTERM, 20)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that the tests of a session share."""
    with running_server(tmp_path_factory.mktemp("prefect")) as (api, _):
        yield api
