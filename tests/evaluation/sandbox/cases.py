"""What the sandbox's tests share: running one source, and watching the processes of the sandbox."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation.sandbox import Job, Level, ProgramResult, Sandbox

KINDS = ("namespaces", "rlimits", "rlimits without rules")
"""Of sandboxes, by what a machine may allow them."""

LEAVE_THE_SESSION = (
    "import ctypes, os, time\nif os.getsid(0) != os.getpid():\n    os.setsid()\n"
    "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"
)
"""Out of the process group, and no longer killed with the parent."""


def require_namespaces(sandbox: Sandbox) -> Sandbox:
    """The sandbox; skips where this machine's kernel lets users make no namespaces, which vcore then does without."""
    if sandbox.level != "namespaces":
        pytest.skip("NOT TESTED: this machine does not let users make namespaces")
    return sandbox


def sandbox_of_kind(kind: str, packages: Sequence[str] = (), memory_mib: int = 512) -> Sandbox:
    """A sandbox of one of `KINDS`; skips where this machine lets nobody make namespaces, and for no other reason."""
    level: Level = "namespaces" if kind == "namespaces" else "rlimits"
    if level == "namespaces":
        with Sandbox() as plain:
            require_namespaces(plain)
    return Sandbox(memory_mib, level, file_rules="without" not in kind, packages=packages)


def value_of(sandbox: Sandbox, source: str, expression: str) -> object:
    outcome = sandbox.run(Job([source], expressions=[expression]), 5.0)
    assert outcome.status == "done", outcome
    return outcome.values[0]


def run(sandbox: Sandbox, source: str, limit_s: float = 1.0) -> ProgramResult:
    return sandbox.run(Job([source], expressions=["f()"]), limit_s)


def sandbox_processes() -> dict[int, int]:
    """Processes of this machine that run a child of a sandbox, of another test's as well, with their parents."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"sandbox/child/" in (folder / "cmdline").read_bytes():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return parents


def servers(caller: int) -> set[int]:
    """Those of them that the caller started, which start the others."""
    return {pid for pid, parent in sandbox_processes().items() if parent == caller}


def gone(pids: set[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while pids & sandbox_processes().keys():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Spy(threading.Thread):
    """Collects the processes that the sandbox's servers start while it is active, orphans included that were seen
    before; the servers, children of `caller`, stay."""

    def __enter__(self) -> "Spy":
        self.caller, self.seen, self.stop = os.getpid(), set[int](), threading.Event()
        self.start()
        return self

    def run(self) -> None:
        while not self.stop.wait(0.01):
            processes, started = sandbox_processes(), servers(self.caller)
            family = started | self.seen
            while more := {pid for pid, parent in processes.items() if parent in family} - family:
                family |= more
            self.seen |= (family - started) & processes.keys()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()


def forged(lines: str) -> str:
    """A program that finds the token in the harness's frames and writes the value of an expression as its result."""
    return (
        "import os, sys\ndef f():\n    frame = sys._getframe()\n"
        "    while 'token' not in frame.f_locals: frame = frame.f_back\n"
        f"    data = memoryview((frame.f_locals['token'] + ' ' + {lines} + '\\n').encode())\n"
        "    while data: data = data[os.write(frame.f_locals['channel'], data):]\n    os._exit(0)"
    )
