"""A worker on the Prefect server of the session, and a web service that receives notifications."""

import contextlib
import http.server
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.prefect_.helpers import command, environment
from tests.prefect_server import end_group


@contextlib.contextmanager
def running_worker(folder: Path, api: str, pool: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on a work pool, which is made where it is missing, in a folder of its own: its process."""
    made = command(folder, api, "prefect", "work-pool", "create", "--type", "process", "--overwrite", pool)
    assert made.returncode == 0, made.stderr
    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, *options]
    with open(folder / "worker.log", "wb") as log:
        process = subprocess.Popen(
            words, cwd=folder, env=environment(folder, api), stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        end_group(process, signal.SIGINT, 30)


@pytest.fixture(scope="session")
def worker(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A work pool with a worker in another folder than any config's."""
    with running_worker(tmp_path_factory.mktemp("worker"), prefect_server, "vcore-test"):
        yield "vcore-test"


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[Any]]]:
    """A web service that keeps what is posted to it."""
    posted: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", posted
    server.shutdown()
    server.server_close()
