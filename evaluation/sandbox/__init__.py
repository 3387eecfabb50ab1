"""Running programs that nobody has read.

One program runs in a process of its own that sees no network, no other process, no environment and only the files a Python needs, and
that is ended when it takes too much time or memory. What it computes comes back as text and is compared here, in the parent: expected
values never enter the process, so nothing a program does there can make it pass.

Two levels, found out once by trying (`Sandbox.level`):

- `namespaces`: user, mount, network, process, IPC and host-name namespaces of Linux; a root folder of Python and system libraries,
  read-only, with a small private /tmp; no capabilities, and no way to get any. Needs no root, but a kernel that lets users make
  namespaces, which many containers forbid.
- `rlimits`: only limits on CPU time, memory, file size and open files, and what follows.

Both add, where the kernel has them:

- rules on files (`Sandbox.ruled`; Landlock): Python and its libraries can be read, a private folder written to, nothing else opened; in
  particular not /proc, where the memory of other processes of the user lies;
- a filter of system calls (`Sandbox.filtered`; x86-64 only): no processes beside the program's own, no other program in its place, no
  sockets, no signals to others, no tracing, no mounts, no session of its own. Threads work, at the level `namespaces` up to 256.

Not covered: faults of the kernel itself; channels such as the time things take; cores that a program keeps busy until its limit. What is
missing on a machine is said by `Sandbox.unprotected`. The process that grades is left as it is: it could be shut against tracing and
writing to its memory as the sandbox's own are (PR_SET_DUMPABLE), but then whoever calls this would lose debuggers and core dumps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import marshal
import math
import os
import py_compile
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from evaluation.sandbox import landlock, seccomp
from evaluation.sandbox.outcome import MAX_RESULT, Outcome, SandboxError, read_outcome
from evaluation.sandbox.values import UNSENDABLE

__all__ = ["UNSENDABLE", "Job", "Level", "Outcome", "Sandbox", "SandboxError"]

Level = Literal["namespaces", "rlimits"]
CHILD = Path(__file__).with_name("child.py")
WALL_FACTOR, WALL_EXTRA_S = 3.0, 2.0
"""A program is ended after WALL_FACTOR * its CPU limit + WALL_EXTRA_S on the clock: busy machines stretch time, CPU seconds stay."""

THREADS = 256
"""Threads and processes of one program, the sandbox's own included."""
KILL_WAIT_S = 1.0
"""For a child to end its own processes when it is told to; longer than it ever needs, for it only kills and waits."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process runs.

    Attributes:
        sections: sources executed in turn in one module that is not `__main__`.
        expressions: evaluated in that module after the sections, each after the one before it.
        entry_point: function to call with each of `inputs`; None where `expressions` are used.
        inputs: argument lists, plain JSON values; each call gets fresh ones.
    """

    sections: Sequence[str]
    expressions: Sequence[str] = ()
    entry_point: str | None = None
    inputs: Sequence[Sequence[Any]] = ()


class Sandbox:
    """Runs jobs, one process each; safe to use from several threads. A context manager: leaving it ends what still runs.

    Args:
        memory_mib: address space of one program, in MiB.
        level: forces a level (tests); None takes the best the machine has.
        call_filter: False leaves out the filter of system calls, so that tests see what the other means hold.
        file_rules: the same for the rules on files.
    """

    def __init__(
        self, memory_mib: int = 4096, level: Level | None = None, call_filter: bool = True, file_rules: bool = True
    ) -> None:
        self.memory_mib = memory_mib
        self._folder = Path(tempfile.mkdtemp(prefix="vcore-sandbox-"))
        # Compiled once, and not by every child, which would take as long as all else that it does before the program runs.
        self._child = py_compile.compile(str(CHILD), str(self._folder / "sandbox" / "child.pyc"), doraise=True) or str(
            CHILD
        )
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        self._call_filter, self._file_rules = call_filter, file_rules
        self._own_user = False
        self.level: Level = self._detect(level)
        self.filtered, self.ruled, self.few_threads = self._probe()
        """Whether programs run under the filter of system calls, under rules on files, and with a limit on the number of their threads."""
        if self.unprotected:
            _log.warning("programs run with less isolation than there could be: %s", "; ".join(self.unprotected))

    @property
    def unprotected(self) -> tuple[str, ...]:
        """What programs can do on this machine that they could not on one with all the means of this module; empty at best."""
        missing = []
        if self.level == "rlimits":
            if not self.ruled:
                missing.append(
                    "they can read the files and the environment that the user can, and write and remove files"
                )
                missing.append(
                    "they can read and write the memory of the user's processes, the one that grades them among these"
                )
            if not self.filtered:
                missing.append("they can change modes and times of the user's files")
                missing.append("they can reach the network")
                missing.append(
                    "they can signal the user's processes, and one that ends those that watch it outlives them"
                )
            missing.append("their files are limited in size, not in number")
        if not self.few_threads:
            missing.append("the number of their threads is not limited")
        if not self.filtered:
            missing.append(
                "no filter of system calls" + ("" if self.few_threads else ": the number of processes is not limited")
            )
        return tuple(missing)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs and remove the private folder. Nothing can be run afterwards."""
        with self._lock:
            self._closed = True
            running = list(self._running)
            for process in running:
                # The thread that started it sees the end of its output, and reaps it; process.terminate() might reap it here.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, job: Job, cpu_limit_s: float, memory_mib: int | None = None) -> Outcome:
        """Run one job, with another address space than usual where `memory_mib` is given.

        Raises:
            SandboxError: the sandbox cannot be set up.
        """
        work = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            return self._run(job, cpu_limit_s, work, self.level, memory_mib or self.memory_mib)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _detect(self, forced: Level | None) -> Level:
        """The best level at which Python runs. Finds out as well whether programs have a user of their own there, which root can give them
        and without which no limit on the number of threads holds for root; and whether the rules on files leave Python all it needs."""
        means: list[tuple[Level, bool, bool]] = [("namespaces", True, True)] if os.getuid() == 0 else []
        means += [("namespaces", False, True), ("rlimits", False, True), ("rlimits", False, False)]
        reason = ""
        for level, self._own_user, rules in means:
            if forced not in (None, level):
                continue
            if level == "rlimits" and rules and forced is None:
                _log.warning("programs run with resource limits only, without namespaces: %s", reason)
            self._file_rules = self._file_rules and rules
            work = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                outcome = self._run(Job([f"import {', '.join(_modules())}"]), 10.0, work, level, self.memory_mib)
                if outcome.status == "done":
                    return level
                reason = outcome.detail
            except SandboxError as error:
                reason = str(error)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        raise SandboxError(f"Python does not run in the sandbox: {reason}")

    def _probe(self) -> tuple[bool, bool, bool]:
        """Whether a program is refused a socket, to write to a device that only the rules keep from it, and more threads than allowed."""
        refused = "def refused(act, *what):\n    try: act(*what)\n    except (PermissionError, RuntimeError): return True\n    return False"
        threads = (
            "def many():\n    _thread.stack_size(2**15)\n    lock = _thread.allocate_lock()\n    lock.acquire()\n"
            f"    for _ in range({THREADS + 1}): _thread.start_new_thread(lock.acquire, ())"
        )
        acts = ["_socket.socket", "os.open, '/dev/zero', os.O_WRONLY", "many"]
        job = Job(["import _socket, _thread, os", refused, threads], expressions=[f"refused({act})" for act in acts])
        outcome = self.run(job, 10.0)
        if outcome.status != "done":
            raise SandboxError(f"the sandbox does not run programs: {outcome.detail}")
        filtered, ruled, few_threads = outcome.values
        return filtered, ruled, few_threads

    def _run(self, job: Job, cpu_limit_s: float, work: Path, level: Level, memory_mib: int) -> Outcome:
        token = secrets.token_hex(16)
        order = {
            "level": level,
            "work": str(work),
            "own_user": self._own_user and level == "namespaces",
            "roots": _roots() if level == "namespaces" else [],
            "memory": memory_mib * 2**20,
            "cpu_s": math.ceil(cpu_limit_s),
            "threads": THREADS if level == "namespaces" and _counts_for_each_namespace() else None,
            "filter": seccomp.program(shared_files=level == "rlimits") if self._call_filter else None,
            "rules": self._rules(level, work) if self._file_rules else None,
            "token": token,
            "caller": os.getpid(),
            "sections": [_without_carriage_returns(section) for section in job.sections],
            "expressions": list(job.expressions),
            "entry_point": job.entry_point,
            # Put together again under the limits: the inputs may hold what another program computed.
            "inputs": marshal.dumps([list(arguments) for arguments in job.inputs], 4),
        }
        deadline = time.monotonic() + cpu_limit_s * WALL_FACTOR + WALL_EXTRA_S
        data, on_time = self._communicate(marshal.dumps(order, 4), work, deadline)
        return read_outcome(data, token, on_time, cpu_limit_s, len(job.expressions) + len(job.inputs))

    def _rules(self, level: Level, work: Path) -> landlock.Ruleset | None:
        if level == "namespaces":  # where the root folder is already no more than these
            return landlock.ruleset(["/"], "/tmp")
        return landlock.ruleset([*_roots(), "/dev/zero", "/dev/urandom"], str(work))

    def _communicate(self, order: bytes, work: Path, deadline: float) -> tuple[bytes, bool]:
        """Start the child, give it its order, and read until it ends, says it ended, or time or space runs out."""
        (work / "order").write_bytes(order)
        read_end, write_end = os.pipe()
        try:
            with open(work / "order", "rb") as stdin:
                # No -I, which would ignore the fixed hash seed: the environment is ours, and -s -S -P keep paths out all the same.
                process = subprocess.Popen(
                    [_python(), "-s", "-S", "-P", "-B", self._child, str(write_end)],
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"PYTHONHASHSEED": "0"},
                    cwd=work,
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        try:
            with self._lock:
                self._running.add(process)
                closed = self._closed
            if closed:
                raise SandboxError("the sandbox is closed")
            return _read_all(read_end, deadline)
        finally:
            os.close(read_end)
            with self._lock:  # before it is reaped: close() must not signal a number that may be another's by then
                self._running.discard(process)
            _kill(process)


def _read_all(descriptor: int, deadline: float) -> tuple[bytes, bool]:
    """Everything up to the closing line, the end of the stream, MAX_RESULT or the deadline; and whether it was not the deadline."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) < MAX_RESULT:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return bytes(data), False
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        data += part
        last = data[-100:]
        if last.endswith(b"\n") and last[:-1].rpartition(b"\n")[2].startswith(b"end "):
            break
    return bytes(data), True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a child, which ends its own (see `child.py`), then what is left of its process group, and reap it."""
    # Not reaped before its group is gone: until then the number of the group cannot become another's. So neither process.terminate(),
    # which reaps a child that has ended; and no pidfd, which some container runtimes lack.
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + KILL_WAIT_S
        while (
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _python() -> str:
    """The real interpreter: a virtual environment's link may lie outside the sandbox's root folder."""
    return os.path.realpath(sys.executable)


def _roots() -> list[str]:
    """Folders a Python needs: system libraries, and its own installation. Not all of /usr, where a machine may have its own settings."""
    prefix = os.path.realpath(sys.base_prefix)
    python = [os.path.join(prefix, "lib")] if prefix in ("/usr", "/usr/local") else [prefix]
    return [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/share/zoneinfo",
        "/lib",
        "/lib64",
        "/etc/ld.so.cache",
        *python,
    ]


def _modules() -> list[str]:
    """Modules of the standard library that need system libraries, or files of their own, as far as this Python has them."""
    found = []
    for name in ("math", "json", "decimal", "ctypes", "zlib", "bz2", "lzma", "hashlib", "unicodedata"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            found.append(name)
    return found


def _counts_for_each_namespace() -> bool:
    """Whether the kernel counts a user's processes in each user namespace alone; before, all that the user has would be counted."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return (int(major), int(minor)) >= (5, 14)


def _without_carriage_returns(source: str) -> str:
    return source.replace("\r\n", "\n")
