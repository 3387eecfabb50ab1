"""A tab of a headless browser, driven over its DevTools protocol: JavaScript, keys, memory and processor time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stages.report.test_browser import CHROME, QUIET

PATIENCE = 300
"""Seconds that one answer of the browser may take on a busy machine."""
POLITE = ("setpriv", "--bounding-set=-sys_nice") if os.geteuid() == 0 and shutil.which("setpriv") else ()
"""As root a browser raises its own priority, to -8 even where it was started with `nice`; it shall have that of the
server that it is measured with."""


class Tab:
    """The only tab of a browser."""

    def __init__(self, socket: Any, process: int) -> None:
        self._socket, self._process, self._asked = socket, process, 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; events that come before its answer are passed over."""
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE))
            if answer.get("id") == self._asked:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or what it promises."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def heap(self) -> float:
        """MiB of JavaScript's heap in use by the page after a collection; its workers are not counted."""
        self.call("HeapProfiler.collectGarbage")
        return float(self.call("Runtime.getHeapUsage")["usedSize"]) / 2**20

    def resident(self) -> float:
        """MiB of resident memory of the process that renders the page, with its workers."""
        renderers = [pid for pid in family(self._process) if "--type=renderer" in _read(pid, "cmdline")]
        pages = max(int(_read(pid, "statm").split()[1]) for pid in renderers)  # a spare one may wait beside it
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def processor(self, *others: int) -> float:
        """Seconds of processor time of the browser with all its processes, and of other processes with theirs."""
        ticks = sum(_ticks(pid) for root in (self._process, *others) for pid in family(root))
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def opened(folder: Path, address: str, *options: str) -> Iterator[Tab]:
    """A browser with a new profile in `folder`, at an address."""
    client = pytest.importorskip("websockets.sync.client")
    line = [
        *POLITE,
        str(CHROME),
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        "--remote-debugging-port=0",
        *options,
    ]
    process = subprocess.Popen([*line, address], stderr=subprocess.DEVNULL)
    try:
        port = folder / "profile" / "DevToolsActivePort"
        while not port.is_file() or not port.read_text().strip():
            assert process.poll() is None, f"the browser ended with {process.returncode}"
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json") as answer:
            target = next(t for t in json.load(answer) if t["type"] == "page")
        with client.connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Tab(socket, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=120)


def family(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(int(entry.name), "stat")):
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, ahead = [], [root]
    while ahead:
        found.append(ahead.pop())
        ahead += children.get(found[-1], [])
    return found


def _ticks(pid: int) -> int:
    """Clock ticks of a process and of its children that have ended."""
    stat = _read(pid, "stat")
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) if stat else 0


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile
