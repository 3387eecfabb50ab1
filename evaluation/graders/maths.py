"""Maths: is the boxed answer worth the same as the gold one?

Whole numbers are compared as such. Everything else is read as a tree (`answers/`), whose expressions sympy compares: it
does what the text says, so some answers take forever, some take all the memory, some crash it. So it runs in the main
thread of worker processes (`maths_worker.py`), and a worker that does not answer in time is ended and replaced, at the
cost of one item.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

from evaluation.graders.answers.equality import Equality, NeedsAlgebra, NoAlgebra
from evaluation.graders.answers.quantity import known_unit, same_unit
from evaluation.graders.notation import clean, whole_number
from evaluation.harness.child_processes import wait_or_kill
from evaluation.records import Verdict

VERSION = "7"  # part of every score's protocol; raise it when the same answer may get another verdict
MAX_ANSWER = 2000  # characters; no reference answer has nearly as many, and longer text only keeps workers busy
START_S = 120.0  # seconds a worker may take to import sympy and math-verify; it is about one on an idle machine

_PROJECT = Path(__file__).absolute().parents[2]  # of a link where there is one, beside which no other libraries lie


def without_worker(gold: str, answer: str) -> tuple[Verdict, str] | None:
    """Verdict on a pair that needs no algebra, with a detail; None where only algebra can tell."""
    if len(answer) > MAX_ANSWER:
        return "wrong", f"{len(answer)} characters are no answer"
    left, right = whole_number(gold), whole_number(answer)
    if left is not None and right is not None and left != right:
        return "wrong", ""
    unit = None if gold.isdecimal() else known_unit(gold)
    if unit is not None and (other := known_unit(answer)) is not None and not same_unit(unit, other):
        return "wrong", "in another unit"
    if left is not None and left == right:
        return "correct", ""
    equality = Equality(NoAlgebra())
    try:
        equal = equality(clean(gold), clean(answer))
    except NeedsAlgebra:
        return None
    return "correct" if equal else "wrong", equality.reason


class MathsWorker:
    """One process that compares answers, started when it is first needed. Used by one thread at a time.

    An item may take `timeout_s` seconds on the clock, from the moment that the process, ready, is sent it.
    """

    program = "evaluation.graders.maths_worker"

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.started = 0  # how many processes this worker has been so far
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def compare(self, gold: str, answer: str) -> tuple[Verdict, str]:
        """Verdict on one pair, with a detail where it is not plain. Never raises for what an answer does."""
        return self._judged({"gold": clean(gold), "answer": clean(answer)})

    def _judged(self, item: dict[str, object]) -> tuple[Verdict, str]:
        """The process' verdict on an item."""
        try:
            self._start()
            reply = self._exchange(self.timeout_s, {**item, "cpu_s": 2 * self.timeout_s + 5})
        except ConnectionError as error:
            reply = {"error": str(error)}
        if reply is not None and "error" not in reply:
            return ("correct" if reply["equal"] else "wrong"), reply["detail"]
        self._stop()  # also after an exception out of math-verify, which may leave sympy's caches half-written
        if reply is None:
            return "timeout", f"algebra took more than {self.timeout_s:g} s"
        out_of_memory = reply["error"] == "MemoryError"
        return ("timeout", "algebra ran out of memory") if out_of_memory else ("grader_error", reply["error"])

    def interrupt(self) -> None:
        """End the process from another thread while the worker is in use, for good; its item becomes a grader error."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process; only while no other thread uses the worker."""
        self.interrupt()
        self._stop()
        self._errors.close()

    def _start(self) -> None:
        """Have a process that is ready."""
        with self._lock:
            if self._closed:
                raise ConnectionError("the grader is closed")
            if self._process is not None:
                return
            self._connection, theirs = Pipe()
            path = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH", "")]))
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", self.program, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    # A fixed hash seed: sympy's results can depend on the order of sets.
                    env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"},
                    start_new_session=True,  # Ctrl-C at the terminal is for the parent, which ends its workers itself
                )
            self.started += 1
        if self._exchange(START_S) is None:
            raise ConnectionError(f"the maths worker was not ready within {START_S:g} s")

    def _exchange(self, seconds: float, item: dict[str, object] | None = None) -> dict[str, Any] | None:
        """Send an item, if there is one, and receive a reply; None when the time is over."""
        assert self._connection is not None
        try:
            if item is not None:
                self._connection.send_bytes(json.dumps(item).encode())
            return json.loads(self._connection.recv_bytes()) if self._connection.poll(seconds) else None
        except (EOFError, OSError) as error:
            status = self._stop(grace_s=1.0)
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "nothing on its error output"
            raise ConnectionError(f"the maths worker ended (status {status}): {last}") from error

    def _stop(self, grace_s: float = 0.0) -> int | None:
        """The exit status of the process, if there is one, which is ended where it does not end in time by itself."""
        with self._lock:
            process, self._process = self._process, None
        if process is None or self._connection is None:
            return None
        self._connection.close()
        wait_or_kill(process, grace_s)
        return process.returncode
