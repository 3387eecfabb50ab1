"""The embedded Prefect server: records a run where no server is set up, and never outlives it.

Prefect can start such a server itself, but in the terminal's process group, where Ctrl-C ends it before it has heard
how the run ended; it then waits two minutes for one that died, and leaves it behind when the run is killed. This one is
Prefect's own application in a session of its own, which the kernel ends with the run: `python -m
pipeline.prefect_.embedded PORT PARENT`.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.launch.environment import free_port, python_path
from pipeline.prefect_.internals import server_application
from pipeline.prefect_.server_process import Server, start_server
from stages.harness.process import die_with_parent

DATABASE = ("prefect.db", "prefect.db-wal", "prefect.db-shm")


def start_embedded_server(home: Path, say: Callable[[str], None], *, own: bool) -> Server | None:
    """Start the server on a free port with Prefect's home in `home`, or say that it does not start and return None.

    It ends when this process does, after what Prefect still has to send at exit, and however this process ends.
    A database of our `own` that a killed server left unusable is set aside, and the server tried once more.
    """
    home.mkdir(parents=True, exist_ok=True)
    server = _start(home)
    if server is None and own and (home / DATABASE[0]).is_file():
        aside = home / f"damaged-{time.time_ns()}"
        aside.mkdir()
        for name in DATABASE:
            if (home / name).is_file():
                os.rename(home / name, aside / name)
        say(f"[yellow]the embedded Prefect server did not start; its database is set aside in {aside}[/]")
        server = _start(home)
    if server is None:
        log = f"(log: {home / 'server.log'})"
        say(f"[yellow]the embedded Prefect server does not start {log}; this run is not recorded there[/]")
        return None
    atexit.register(server.stop)
    return server


def _start(home: Path) -> Server | None:
    port = free_port()
    command = [sys.executable, "-P", "-m", "pipeline.prefect_.embedded", str(port), str(os.getpid())]
    environment = {"PREFECT_HOME": str(home), "PYTHONPATH": python_path()}
    return start_server(command, port, environment, home / "server.log")


def _serve(port: int, parent: int) -> None:
    die_with_parent(parent)
    import uvicorn

    application = server_application()
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
