"""The sandbox: finds out how the machine can isolate programs, and runs jobs in that way."""

import contextlib
import dataclasses
import importlib
import logging
import marshal
import math
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any, Literal, NamedTuple

from evaluation.sandbox import landlock, seccomp
from evaluation.sandbox.cases import CaseResult, read_cases
from evaluation.sandbox.child import native
from evaluation.sandbox.child.isolation import FILE_BYTES
from evaluation.sandbox.children import Children
from evaluation.sandbox.compiler import COMPILE_MIB, COMPILE_S, COMPILED_BYTES, Binaries, find_compiler
from evaluation.sandbox.packages import find_packages
from evaluation.sandbox.result import ProgramResult, SandboxError, read_result

Level = Literal["namespaces", "rlimits"]
WALL_FACTOR, WALL_EXTRA_S = 3.0, 2.0
"""A program ends after WALL_FACTOR * its CPU limit + WALL_EXTRA_S on the clock, for a busy machine stretches time."""
THREADS = 256  # threads and processes of one program, the sandbox's own included

PROBE = f"""
import _socket, _thread, os
def refused(act, *arguments):
    try: act(*arguments)
    except (PermissionError, RuntimeError): return True
    return False
def many_threads():
    _thread.stack_size(2**15)
    lock = _thread.allocate_lock()
    lock.acquire()
    for _ in range({THREADS + 1}): _thread.start_new_thread(lock.acquire, ())
"""
"""Tries what only the filter, only the rules on files, and only the limit on threads refuse."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process runs."""

    sections: Sequence[str | CodeType]
    """Sources, or compiled ones, executed in turn in one module that is not `__main__`."""
    expressions: Sequence[str] = ()
    """Evaluated in that module after the sections, each after the one before it."""
    entry_point: str | None = None
    """The function to call with each of `inputs`; None where `expressions` are used."""
    inputs: Sequence[Sequence[Any]] = ()
    """Argument lists, plain JSON values; each call gets fresh ones."""
    cases: Sequence[bytes] = ()
    """Inputs for `Sandbox.run_cases`, in place of expressions and argument lists."""
    function: str | None = None
    """The function, or method of a class Solution, that takes each of `cases` as JSON values, one a line; None: a case
    is the program's standard input."""
    program: Path | None = None
    """In place of sections: a program that `Sandbox.compiled` made, run on each of `cases` in a process of its own."""
    digits: int = 0
    """Most decimal digits of an integer that is read or printed in a case; 0 for Python's own limit."""


class _Means(NamedTuple):
    """One way to isolate programs."""

    level: Level
    own_user: bool
    """Root can give programs a user of their own, without which no limit on the number of its threads holds for it."""
    file_rules: bool
    """A Python that needs other files than these allow does not run under the rules."""


class Sandbox(contextlib.AbstractContextManager["Sandbox"]):
    """Runs jobs, one process each. Safe to use from several threads. Raises `SandboxError` where Python does not run,
    and `UnknownPackage` for a package that is not installed.

    Args:
        memory_mib: address space of one program, in MiB.
        level: forces a level (tests); None takes the best that the machine has.
        call_filter, file_rules: False leaves out the filter of system calls or the rules on files (tests of the rest).
        packages: distributions of this environment that programs may import, with what these need.

    Attributes:
        packages: those, found (see `evaluation.sandbox.packages`).
        level: how programs are isolated.
        filtered, ruled: whether they run under the filter of system calls, and under rules on files.
        few_threads: whether the number of their threads is limited.
    """

    def __init__(
        self,
        memory_mib: int = 4096,
        level: Level | None = None,
        call_filter: bool = True,
        file_rules: bool = True,
        packages: Sequence[str] = (),
    ) -> None:
        self.memory_mib, self.packages = memory_mib, find_packages(packages)
        self._folder = Path(tempfile.mkdtemp(prefix="vcore-sandbox-"))
        self._children = Children(self._folder, self.packages)
        self._binaries = Binaries(self._folder / "binaries", self._compile)
        self._much_memory = threading.Lock()
        self._call_filter = call_filter
        self._means = self._best_means(level, file_rules)
        self.level = self._means.level
        acts = ["_socket.socket", "os.open, '/dev/zero', os.O_WRONLY", "many_threads"]
        tried = self.run(Job([PROBE], expressions=[f"refused({act})" for act in acts]), 10.0)
        if tried.status != "done":
            raise SandboxError(f"the sandbox does not run programs: {tried.detail}")
        self.filtered, self.ruled, self.few_threads = map(bool, tried.values)
        if self.unprotected:
            _log.warning("programs run with less isolation than there could be: %s", "; ".join(self.unprotected))

    @property
    def unprotected(self) -> tuple[str, ...]:
        """What programs can do here that they could not on a machine with all means of isolation; empty at best."""
        missing = []
        if self.level == "rlimits":
            if not self.ruled:
                missing += [
                    "they can read the files and the environment that the user can, and write and remove files",
                    "they can read and write the memory of the user's processes, the one that grades them among these",
                ]
            if not self.filtered:
                missing += [
                    "they can change modes and times of the user's files",
                    "they can reach the network",
                    "they can signal the user's processes, and one that ends those that watch it outlives them",
                ]
            missing.append("their files are limited in size, not in number")
        if not self.few_threads:
            missing.append("the number of their threads is not limited")
        if not self.filtered:
            processes = "" if self.few_threads else ": the number of processes is not limited"
            missing.append(f"no filter of system calls{processes}")
        return tuple(missing)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs and remove the private folder. Nothing can be run afterwards."""
        self._children.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, job: Job, cpu_limit_s: float, memory_mib: int | None = None) -> ProgramResult:
        """Run one job, with another address space than usual where `memory_mib` is given. Jobs with more than the usual
        run one at a time, or the machine's memory would not do.

        Raises:
            SandboxError: the sandbox cannot be set up, or is closed.
        """
        with self._room(memory_mib) as memory:
            return self._run(job, cpu_limit_s, memory, self._means)

    @contextlib.contextmanager
    def _room(self, memory_mib: int | None) -> Iterator[int]:
        """The address space of a job, in which it may use it."""
        memory_mib = memory_mib or self.memory_mib
        with self._much_memory if memory_mib > self.memory_mib else contextlib.nullcontext():
            yield memory_mib

    def run_cases(
        self, job: Job, cpu_limit_s: float, most: int, enough_s: float = 0.5, memory_mib: int | None = None
    ) -> list[CaseResult]:
        """What a program did in each of a job's cases, in one process: up to the first that did not end well, or until
        they took `enough_s` CPU seconds or printed megabytes. At least one; of each output, `most` bytes and one more
        at most. Address space as of `run`.

        Raises:
            SandboxError: the sandbox cannot be set up, or is closed.
        """
        extra = {"most": most, "enough_s": enough_s}
        with self._room(memory_mib) as memory:
            return read_cases(*self._carry_out(job, cpu_limit_s, memory, self._means, extra), len(job.cases))

    def compiled(self, source: str) -> contextlib.AbstractContextManager[Path]:
        """A context with the program that a C++ source becomes, for `Job.program`; compiled once, while it is in use or
        was lately.

        Raises:
            CompileError: the compiler does not take it, or not within its limits.
            NoCompiler: there is none.
            SandboxError: the sandbox cannot be set up, or is closed.
        """
        return self._binaries.of(source)

    def _compile(self, source: str) -> CaseResult:
        job, command = Job([source]), find_compiler().command(native.SOURCE, native.PROGRAM)
        extra = {"command": command, "file_bytes": COMPILED_BYTES}
        written = self._carry_out(job, COMPILE_S, COMPILE_MIB, self._means, extra)
        [result] = read_cases(*written, 1)
        return result

    def _best_means(self, forced: Level | None, file_rules: bool) -> _Means:
        """The best means with which Python runs."""
        candidates = [_Means("namespaces", True, file_rules)] if os.getuid() == 0 else []
        candidates += [_Means("namespaces", False, file_rules), _Means("rlimits", False, file_rules)]
        candidates += [_Means("rlimits", False, False)] if file_rules else []
        job, reason = Job([f"import {', '.join(_modules())}"]), ""
        for means in [means for means in candidates if forced in (None, means.level)]:
            if means.level == "rlimits" and means.file_rules == file_rules and forced is None:
                _log.warning("programs run with resource limits only, without namespaces: %s", reason)
            try:
                result = self._run(job, 10.0, self.memory_mib, means)
                if result.status == "done":
                    return means
                reason = result.detail
            except SandboxError as error:
                reason = str(error)
        raise SandboxError(f"Python does not run in the sandbox: {reason}")

    def _run(self, job: Job, cpu_limit_s: float, memory_mib: int, means: _Means) -> ProgramResult:
        written = self._carry_out(job, cpu_limit_s, memory_mib, means, {})
        return read_result(*written, len(job.expressions) + len(job.inputs))

    def _carry_out(
        self, job: Job, cpu_limit_s: float, memory_mib: int, means: _Means, extra: dict[str, Any]
    ) -> tuple[bytes, str, bool, float]:
        """What the child wrote, the token of its result, whether it ended on time, and the CPU limit."""
        isolated, token = means.level == "namespaces", secrets.token_hex(16)
        work = Path(tempfile.mkdtemp(dir=self._folder))
        # The root folder of a namespace holds no more than what can be read anyway.
        roots, runs, allowed = [*_roots(), *self.packages.paths], list[str](), list[str]()
        if "command" in extra:
            roots, allowed = list(find_compiler().roots), ["execve", "fork", "vfork"]
            runs = ["/"] if isolated else [path for path in roots if os.path.exists(path)]
        elif job.program is not None:
            roots, runs, allowed = [], ["/program" if isolated else str(job.program)], ["execve"]
        readable = ["/"] if isolated else [*roots, "/dev/zero", "/dev/urandom"]
        writable = "/tmp" if isolated else str(work)
        order = {
            "level": means.level,
            "work": str(work),
            "own_user": means.own_user,
            "roots": roots if isolated else [],
            "memory": memory_mib * 2**20,
            "cpu_s": math.ceil(cpu_limit_s),
            "threads": THREADS if isolated and _counts_threads_by_namespace() else None,
            "filter": seccomp.program(shared_files=not isolated, allowed=allowed) if self._call_filter else None,
            "rules": landlock.ruleset(readable, writable, runs) if means.file_rules else None,
            "token": token,
            "sections": [s.replace("\r\n", "\n") if isinstance(s, str) else s for s in job.sections if s],
            "expressions": list(job.expressions),
            "entry_point": job.entry_point,
            # Put together again under the limits: the inputs may hold what another program computed.
            "inputs": marshal.dumps([list(arguments) for arguments in job.inputs], 4),
            "cases": list(job.cases),
            "function": job.function,
            "digits": job.digits,
            "command": None,
            "binary": None if job.program is None else str(job.program),
            "program": runs[0] if runs else None,
            "limit_s": cpu_limit_s,
            "file_bytes": FILE_BYTES,
            **extra,
        }
        try:
            deadline = time.monotonic() + cpu_limit_s * WALL_FACTOR + WALL_EXTRA_S
            data, on_time = self._children.run(order, work, deadline)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return data, token, on_time, cpu_limit_s


def _roots() -> list[str]:
    """Folders that a Python needs: system libraries, and its own. Not all of /usr, which may hold local settings."""
    prefix = os.path.realpath(sys.base_prefix)
    python = os.path.join(prefix, "lib") if prefix in ("/usr", "/usr/local") else prefix
    libraries = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64"]
    return [*libraries, "/etc/ld.so.cache", python]


def _modules() -> list[str]:
    """Modules of the standard library that need system libraries or files of their own, of those that Python has."""
    names = []
    for name in ("math", "json", "decimal", "ctypes", "zlib", "bz2", "lzma", "hashlib", "unicodedata"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            names.append(name)
    return names


def _counts_threads_by_namespace() -> bool:
    """Whether the kernel counts a user's processes in each namespace alone. Before Linux 5.14 it counts them all."""
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 14)
