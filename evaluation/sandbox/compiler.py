"""C++ programs: the compiler that the machine has, and what was compiled with it.

The compiler reads text that nobody has read, so it runs in the sandbox as programs do, with what it needs besides: its
own files, the right to start its parts, and more room for what it writes. Programs are linked statically. Such a one
needs no file but its own, so its root folder holds nothing else, and the only program that it may start in its own
place is itself.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from evaluation.sandbox.cases import CaseResult
from evaluation.sandbox.result import SandboxError

FLAGS = ("-O2", "-std=c++17", "-static")
QUIET = ("-w", "-fmax-errors=2", "-fdiagnostics-color=never", "-fno-diagnostics-show-caret")
COMPILE_S, COMPILE_MIB, COMPILED_BYTES = 10.0, 2048, 32 * 2**20
"""Limits of one compilation: CPU seconds and address space of each of its processes, bytes of each file it writes."""
KEPT = 64
"""Programs whose compiled form is kept on disk, a few MB each."""
_SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/include", "/bin", "/lib", "/lib64")


class NoCompiler(SandboxError):
    """The machine has no compiler that C++ programs can be graded with."""


class CompileError(ValueError):
    """The compiler does not take a program; the message is what it says."""


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A C++ compiler."""

    path: str
    version: str
    """`12.2.0`."""
    roots: tuple[str, ...]
    """Folders that it needs."""

    @property
    def name(self) -> str:
        """What decides what it makes of a source: `g++ 12.2.0 -O2 -std=c++17 -static`."""
        return " ".join([f"g++ {self.version}", *FLAGS])

    def command(self, source: str, program: str) -> list[str]:
        """The command that compiles one file to another."""
        return [self.path, *FLAGS, *QUIET, "-o", program, source]


@functools.cache
def find_compiler() -> Compiler:
    """The machine's g++. Raises `NoCompiler` where there is none, or none that can link statically."""
    path = shutil.which("g++")
    if path is None:
        raise NoCompiler("C++ programs need g++, which this machine does not have (Debian and Ubuntu: package g++)")
    for library in ("libstdc++.a", "libc.a"):
        if not os.path.isabs(_said(path, f"-print-file-name={library}")):
            raise NoCompiler(f"C++ programs need the static library {library}, which {path} does not find")
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(path)))
    own = () if prefix in ("/", "/usr") else (prefix,)
    return Compiler(path, _said(path, "-dumpfullversion"), (*_SYSTEM, *own))


def _said(path: str, option: str) -> str:
    done = subprocess.run([path, option], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


@dataclasses.dataclass
class _Compiled:
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    users: int = 0
    path: Path | None = None
    error: str = ""


class Binaries:
    """Compiled programs, in `folder`. A source is compiled once, by `compile_source`, as long as it is among the last
    `KEPT`. Safe to use from several threads."""

    def __init__(self, folder: Path, compile_source: Callable[[str], CaseResult]) -> None:
        self._folder, self._compile = folder, compile_source
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Compiled] = OrderedDict()
        self.compiled = 0
        """How often the compiler ran."""

    @contextlib.contextmanager
    def of(self, source: str) -> Iterator[Path]:
        """The program of a source, a file that is there as long as the context. Raises `CompileError`, and
        `SandboxError` where the compiler cannot be run."""
        text = f"{find_compiler().name}\0{source}".encode(errors="surrogatepass")
        digest = hashlib.sha256(text).hexdigest()
        with self._lock:
            compiled = self._kept.setdefault(digest, _Compiled())
            self._kept.move_to_end(digest)
            compiled.users += 1
        try:
            with compiled.lock:
                if compiled.path is None and not compiled.error:
                    self._make(source, self._folder / digest, compiled)
            if compiled.path is None:
                raise CompileError(compiled.error)
            yield compiled.path
        finally:
            with self._lock:
                compiled.users -= 1
                self._forget()

    def _make(self, source: str, path: Path, compiled: _Compiled) -> None:
        result = self._compile(source)
        self.compiled += 1
        if result.status != "done":
            compiled.error = result.detail or "no program"
            return
        self._folder.mkdir(exist_ok=True)
        path.write_bytes(result.output)
        path.chmod(0o555)
        compiled.path = path

    def _forget(self) -> None:
        idle = [digest for digest, compiled in self._kept.items() if not compiled.users]
        for digest in idle[: max(0, len(self._kept) - KEPT)]:
            path = self._kept.pop(digest).path
            if path is not None:
                path.unlink(missing_ok=True)
