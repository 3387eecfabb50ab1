"""Starting a child process, reading what it writes, and ending it."""

import contextlib
import marshal
import os
import py_compile
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from evaluation.sandbox.result import MAX_RESULT, SandboxError

KILL_WAIT_S = 1.0  # for a child to end its own processes after SIGTERM; more than it ever needs


class Children:
    """The children of one sandbox, whose private folder is `folder`. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        # Compiled once: that takes as long as all else that a child does before it runs the program.
        compiled = folder / "sandbox" / "child"
        for source in Path(__file__).with_name("child").glob("*.py"):
            py_compile.compile(str(source), str(compiled / f"{source.stem}.pyc"), doraise=True)
        # The real interpreter, for a virtual environment's link may lie outside the sandbox's root folder. No -I, which
        # would ignore the fixed hash seed: the environment is ours, and -s -S -P keep paths out all the same.
        self._command = [os.path.realpath(sys.executable), "-s", "-S", "-P", "-B", str(compiled / "start.pyc")]
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(self, order: dict[str, Any], work: Path, deadline: float) -> tuple[bytes, bool]:
        """Have a child carry out an order in an empty folder. What it wrote, and whether it ended by the deadline, on
        the monotonic clock. Nothing of it is left afterwards. Raises `SandboxError` after `close`."""
        (work / "order").write_bytes(marshal.dumps(order, 4))
        read_end, write_end = os.pipe()
        try:
            with open(work / "order", "rb") as stdin:
                process = subprocess.Popen(
                    [*self._command, str(write_end)],
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
                if self._closed:
                    raise SandboxError("the sandbox is closed")
            return _read(read_end, deadline)
        finally:
            os.close(read_end)
            with self._lock:  # before it is reaped: close() must not signal a number that may be another's by then
                self._running.discard(process)
            _end(process)

    def close(self) -> None:
        """End the children that run, and refuse to start any more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                # Its thread sees the end of its output, and reaps it; process.terminate() might reap it here.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)


def _read(descriptor: int, deadline: float) -> tuple[bytes, bool]:
    """Everything up to the closing line, the end of the stream or MAX_RESULT; or up to the deadline, with False."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) < MAX_RESULT:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or not poll.poll(remaining_s * 1000):
            return bytes(data), False
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        data += part
        last = data[-100:]
        if last.endswith(b"\n") and last[:-1].rpartition(b"\n")[2].startswith(b"end "):
            break
    return bytes(data), True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child, which ends its own (see `child/main.py`), then what is left of its process group, and reap it."""
    # Not reaped before its group is gone: until then the number of the group cannot become another's. So neither
    # process.terminate(), which reaps a child that has ended; and no pidfd, which some container runtimes lack.
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(process.pid, signal.SIGTERM)
        deadline, running = time.monotonic() + KILL_WAIT_S, os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, process.pid, running) is None and time.monotonic() < deadline:
            time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
