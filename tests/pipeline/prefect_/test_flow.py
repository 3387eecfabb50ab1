"""What Prefect's users expect of a run: cancelling and retrying from the UI, and that a server may go away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.prefect_.schedule import ENTRYPOINT
from tests.prefect_server import query, running_server

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow


def chain(home: Path, api: str | None, *words: str) -> subprocess.Popen[bytes]:
    """A run of the kill tests' chain, on a server."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= (
        {"PREFECT_API_URL": api, "PREFECT_HOME": str(home.with_suffix(".prefect")), "PREFECT_CLIENT_MAX_RETRIES": "1"}
        if api is not None
        else {}
    )
    log = open(home.with_suffix(".log"), "ab")  # noqa: SIM115 - the process writes to it
    command = [sys.executable, "-m", "tests.kill.run_chain", str(home), "--flow", *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_for(what: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return result


def begun(home: Path) -> bool:
    return any(file.stat().st_size for file in (home / "work" / "chain").glob("*/events.jsonl"))


def runs(api: str, name: str) -> list[dict[str, Any]]:
    return query(f"{api}/flow_runs/filter", {"flow_runs": {"name": {"like_": name}}})


@pytest.mark.parametrize("words", [(), ("--two",)])
def test_cancelling_a_run_at_a_terminal_stops_it_and_leaves_it_resumable(
    tmp_path: Path, prefect_server: str, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    before = {run["id"] for run in runs(prefect_server, "vcore/chain")}
    process = chain(home, prefect_server, "--slow", *words)
    wait_for(lambda: begun(home))
    (run,) = wait_for(lambda: {run["id"] for run in runs(prefect_server, "vcore/chain")} - before)
    query(f"{prefect_server}/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert process.wait(60) == 130, home.with_suffix(".log").read_text()
    assert (
        query(f"{prefect_server}/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]["state"]["type"]
        == "CANCELLED"
    )
    assert any((home / "work" / "chain").glob("*/state/checkpoint.json"))
    assert chain(home, None).wait(120) == 0, home.with_suffix(".log").read_text()
    assert "resuming from step" in home.with_suffix(".log").read_text()


class Fault:
    """A proxy before a real server, which from some moment on answers every request but those for its health with a
    fault: a status code, or `hang`, or `close`."""

    def __init__(self, api: str) -> None:
        self.now = ""
        fault, upstream = self, int(api.split(":")[2].removesuffix("/api"))

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = self.request.recv(65536)
                if b"/health" not in head and fault.now:
                    if fault.now == "hang":
                        over.wait()
                    elif fault.now.startswith("5"):
                        self.request.sendall(f"HTTP/1.1 {fault.now}\r\nContent-Length: 0\r\n\r\n".encode())
                    return
                with socket.create_connection(("127.0.0.1", upstream)) as server:
                    server.sendall(head)
                    back = threading.Thread(target=pump, args=(server, self.request), daemon=True)
                    back.start()
                    pump(self.request, server)
                    back.join()

        over = threading.Event()
        tunnels: list[socket.socket] = []
        self._tunnels = tunnels

        def pump(source: socket.socket, target: socket.socket) -> None:
            tunnels.append(source)
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.api = f"http://127.0.0.1:{self._server.server_address[1]}/api"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def begin(self, fault: str) -> None:
        self.now = fault
        for tunnel in self._tunnels:
            with contextlib.suppress(OSError):
                tunnel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("fault", ["500", "503 x\r\nRetry-After: 3600", "hang", "close"])
@pytest.mark.parametrize("moment", ["start", "middle"])
def test_a_server_that_fails_costs_a_run_nothing_but_its_record_there(
    tmp_path: Path, prefect_server: str, fault: str, moment: str
) -> None:
    home, proxy = tmp_path / "home", Fault(prefect_server)
    before = len(runs(prefect_server, "vcore/chain"))
    if moment == "start":
        proxy.begin(fault)
    process = chain(home, proxy.api)
    if moment == "middle":
        wait_for(lambda: len(runs(prefect_server, "vcore/chain")) > before)
        proxy.begin(fault)
    wait_for(lambda: process.poll() is not None, 60)
    proxy.close()
    log = home.with_suffix(".log").read_text()
    assert process.returncode == 0, log
    assert log.count("Prefect does not have all of this run") == 1, log
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert len(list((home / "store" / "chain").iterdir())) == 4


def test_a_run_that_fails_is_shown_as_failed_and_nothing_is_said_of_prefect(
    tmp_path: Path, prefect_server: str
) -> None:
    config = tmp_path / "fails.yaml"
    config.write_text(
        f"""{{name: fails, seed: 0, model: make, home: {tmp_path / "home"},
        benchmarks: [{{name: word_problems, problems: 4, max_new_tokens: 32}}],
        data: {{sft: [{{task: word_problems, rows: 8}}]}}, base: {{steps: 21, min_accuracy: 1.0}}}}"""
    )
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "prefect")}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(config), "--until", "base"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "it has not learnt to copy operands" in done.stderr
    assert "Prefect" not in done.stderr, done.stderr
    [run] = runs(prefect_server, "vcore/fails")
    assert run["state_type"] == "FAILED"
    assert "it has not learnt to copy operands" in run["state"]["message"]


def test_a_server_that_is_killed_ends_no_stage(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_server(tmp_path / "server") as (api, server):
        process = chain(home, api, "--slow")
        wait_for(lambda: begun(home))
        os.killpg(server.pid, signal.SIGKILL)
        assert process.wait(300) == 0, home.with_suffix(".log").read_text()
    log = home.with_suffix(".log").read_text()
    assert log.count("Prefect does not have all of this run") == 1, log
    assert "Traceback" not in log
    assert "asked to stop" not in log
    assert len(list((home / "store" / "chain").iterdir())) == 4


def test_a_server_that_is_named_and_not_there_is_said_before_anything_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert chain(home, "http://127.0.0.1:9/api").wait(60) == 1
    assert "the Prefect server at http://127.0.0.1:9/api does not answer" in home.with_suffix(".log").read_text()


def test_prefect_yaml_deploys_what_vcore_deploy_does(tmp_path: Path, prefect_server: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "VCORE_"))}
    environment |= {
        "PREFECT_API_URL": prefect_server,
        "PREFECT_HOME": str(tmp_path),
        "VCORE_HOME": str(tmp_path / "home"),
    }
    for words in (
        ["prefect", "work-pool", "create", "--type", "process", "vcore", "--overwrite"],
        ["prefect", "--no-prompt", "deploy", "--all"],
        ["pipeline", "deploy", "configs/demo.yaml", "--cron", "0 2 * * *", "--name", "by-command"],
    ):
        made = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
        )
        assert made.returncode == 0, made.stdout + made.stderr
    deployments = {d["name"]: d for d in query(f"{prefect_server}/deployments/filter", {})}
    file, command = deployments["demo-nightly"], deployments["by-command"]
    for deployment in (file, command):
        assert deployment["entrypoint"].removeprefix(f"{ROOT}/") == ENTRYPOINT
        assert deployment["work_pool_name"] == "vcore"
        assert [s["schedule"]["cron"] for s in deployment["schedules"]] == ["0 2 * * *"]
        assert set(deployment["tags"]) == {"vcore", "config:demo", "seed:0", "model:make"}
    assert Path(command["parameters"]["config"]) == ROOT / file["parameters"]["config"]
