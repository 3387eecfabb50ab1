"""Child processes: each serves one program after the other (see `child/main.py`). Telling them, reading what comes of
it, and ending them."""

import contextlib
import marshal
import os
import py_compile
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from evaluation.sandbox.packages import ONE_THREAD, Packages
from evaluation.sandbox.result import MAX_RESULT, SandboxError


class _Server(subprocess.Popen[bytes]):
    stdin: IO[bytes]
    stdout: IO[bytes]

    def tell(self, text: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # one that has ended is found by its missing answer
            self.stdin.write(text)

    def end(self) -> None:
        """End it while it runs no program. Not by the end of its input, of which another process may hold a copy."""
        self.kill()
        self.__exit__(None, None, None)


class Children:
    """The children of one sandbox, whose private folder is `folder`; as many as there are threads that run programs at
    once. Their programs find `packages`. Safe to use from several threads."""

    def __init__(self, folder: Path, packages: Packages) -> None:
        compiled = folder / "sandbox" / "child"
        for source in Path(__file__).with_name("child").glob("*.py"):
            py_compile.compile(str(source), str(compiled / f"{source.stem}.pyc"), doraise=True)
        # The real interpreter, for a virtual environment's link may lie outside the sandbox's root folder. No -I, which
        # would ignore the fixed hash seed: the environment is ours, and -s -S -P keep paths out all the same.
        self._command = [os.path.realpath(sys.executable), "-s", "-S", "-P", "-B", str(compiled / "start.pyc")]
        (compiled / "packages").write_bytes(marshal.dumps((packages.modules, packages.metadata, packages.loaded)))
        self._environment = {"PYTHONHASHSEED": "0"} | (dict.fromkeys(ONE_THREAD, "1") if packages.modules else {})
        self._lock = threading.Lock()
        self._idle: list[_Server] = []
        self._busy: set[_Server] = set()
        self._closed = False

    def run(self, order: dict[str, Any], work: Path, deadline: float) -> tuple[bytes, bool]:
        """Have a child carry out an order in an empty folder. What was written, and whether it ended by the deadline,
        on the monotonic clock. Nothing of it is left afterwards. Raises `SandboxError` after `close`."""
        (work / "order").write_bytes(marshal.dumps(order, 4))
        os.mkfifo(work / "result")
        results = os.open(work / "result", os.O_RDONLY | os.O_NONBLOCK)
        try:
            server = self._begin(work)
            try:
                return _read(results, server.stdout, deadline)
            finally:
                self._finish(server)
        finally:
            os.close(results)

    def close(self) -> None:
        """End the children and what they run, and refuse to start any more."""
        with self._lock:
            for server in self._busy:
                server.tell(b".")  # its thread sees the end of its output
            self._closed = True
        for server in self._idle:
            server.end()

    def _begin(self, work: Path) -> _Server:
        """A child that has been told to carry out the order in the folder."""
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            while self._idle and self._idle[-1].poll() is not None:  # killed by somebody
                self._idle.pop().end()
            server = self._idle.pop() if self._idle else self._start()
            self._busy.add(server)
            server.tell(bytes(work) + b"\n")
        return server

    def _start(self) -> _Server:
        return _Server(
            self._command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )

    def _finish(self, server: _Server) -> None:
        """Wait until nothing of the program is left, and keep the child for another one if it lives."""
        with self._lock:
            if not self._closed:  # or it has been told
                server.tell(b".")
        alive = bool(server.stdout.read(1))
        with self._lock:
            self._busy.discard(server)
            alive = alive and not self._closed
            if alive:
                self._idle.append(server)
        if not alive:
            server.end()


def _read(descriptor: int, server: IO[bytes], deadline: float) -> tuple[bytes, bool]:
    """Everything up to the closing line, the end of the stream or of the server, or MAX_RESULT; or up to the deadline,
    with False."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(server, 0)  # its end is told all the same
    data = bytearray()
    while len(data) < MAX_RESULT:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or not poll.poll(remaining_s * 1000):
            return bytes(data), False
        part = b""
        with contextlib.suppress(BlockingIOError):
            part = os.read(descriptor, 1 << 16)
        if not part:
            break
        data += part
        last = data[-100:]
        if last.endswith(b"\n") and last[:-1].rpartition(b"\n")[2].startswith(b"end "):
            break
    return bytes(data), True
