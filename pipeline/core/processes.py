"""Ending everything that a stage has started, wherever it went.

A process group does not hold it together: torchrun gives its workers sessions of their own, and they outlive it when it is killed. What
they do keep is their environment. So each stage is started with a mark there, and /proc tells who bears it, or is a child of one that does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from pathlib import Path

MARK = "VCORE_STAGE_PROCESS"
"""Environment variable with the mark."""
POLL_SECONDS = 0.02
DIES_WITHIN_S = 20.0
"""How long a killed process may take; one that waits for a driver to give back a GPU's memory takes seconds."""


def new_mark() -> str:
    """A mark that nothing else bears, to be set as `MARK` in the environment of what is started."""
    return secrets.token_hex(16)


def kill_all(group: int, mark: str) -> list[int]:
    """Kill a process group and all who bear the mark, with their children, and wait until they are gone.

    Returns the process ids of those that are still there after `DIES_WITHIN_S` seconds. Without /proc only the group is known.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + DIES_WITHIN_S
    found: set[int] = set()
    while True:  # again: one that was about to start another has done so
        found = _bearers(mark, found)
        if not found or time.monotonic() > deadline:
            return sorted(found)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _bearers(mark: str, found: set[int]) -> set[int]:
    """Living processes with the mark, those found before, and the descendants of both."""
    wanted = f"{MARK}={mark}".encode()
    bearers: set[int] = set()
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            state, parent = (
                (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            )
            if state in "ZX":
                continue
            pid = int(folder.name)
            parents[pid] = int(parent)
            if pid in found or wanted in (folder / "environ").read_bytes().split(b"\0"):
                bearers.add(pid)
    while children := {pid for pid, parent in parents.items() if parent in bearers} - bearers:
        bearers |= children
    return bearers - {os.getpid()}
