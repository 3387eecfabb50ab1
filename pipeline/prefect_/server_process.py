"""A Prefect server in a process of its own: started, waited for until it answers, and ended."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
import urllib.request
from pathlib import Path

from evaluation.harness.child_processes import wait_or_kill

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
        return self.process.poll() is None

    def stop(self) -> None:
        """End the server and wait for its end."""
        self.process.terminate()
        wait_or_kill(self.process, STOP_TIMEOUT_S)


def start_server(command: list[str], port: int, environment: dict[str, str], log: Path) -> Server | None:
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
            if is_healthy(server.address):
                return server
            time.sleep(POLL_SECONDS)
    except BaseException:
        server.stop()
        raise
    server.stop()
    return None


def is_healthy(address: str) -> bool:
    """Whether a server answers at an API address."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
