"""Ending everything that a stage has started, wherever it went.

A process group does not hold a stage together: torchrun gives its workers sessions of their own, and they outlive it
when it is killed. What they do keep is their environment. So each stage is started with a mark there, and everything
that bears it, or descends from a process that does, belongs to the stage.
"""

import contextlib
import os
import secrets
import signal
import time

MARK = "VCORE_STAGE_PROCESS"
"""Environment variable with the mark."""
POLL_SECONDS = 0.02
DIES_WITHIN_S = 20.0
"""How long a killed process may take; one that waits for a driver to give back a GPU's memory takes seconds."""


def new_mark() -> str:
    """A mark that nothing else bears, to be set as `MARK` in the environment of what is started."""
    return secrets.token_hex(16)


def kill_all(group: int, mark: str) -> list[int]:
    """Kill a process group and everything that bears the mark, with descendants, and wait until all are gone.

    Returns the process ids of those that are still there after `DIES_WITHIN_S` seconds.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + DIES_WITHIN_S
    living: set[int] = set()
    while True:  # again: one that was about to start another has done so
        living = _bearers(mark, living)
        if not living or time.monotonic() > deadline:
            return sorted(living)
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _bearers(mark: str, earlier: set[int]) -> set[int]:
    """Living processes with the mark, those of `earlier`, and the descendants of both."""
    import psutil  # takes 20 ms, which a plan need not wait for

    bearers: set[int] = set()
    parents: dict[int, int] = {}
    for process in psutil.process_iter(["ppid", "status", "environ"]):
        if process.info["status"] in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            continue
        parents[process.pid] = process.info["ppid"]
        environment = process.info["environ"] or {}  # None: it has ended, or is another user's
        if process.pid in earlier or environment.get(MARK) == mark:
            bearers.add(process.pid)
    while children := {pid for pid, parent in parents.items() if parent in bearers} - bearers:
        bearers |= children
    return bearers - {os.getpid()}
