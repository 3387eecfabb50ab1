"""Maths: is the boxed answer worth the same as the gold one?

Whole numbers are compared as such. Everything else goes to math-verify, which has sympy do what the text says: some answers take
forever, some take all the memory, some crash it. So it runs in worker processes (`MathsWorker`, `maths_worker.py`), in their main thread,
and a worker that does not answer in time is ended and replaced, at the cost of one item.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from evaluation.graders.notation import as_text, clean, value, whole_number, without_percent
from evaluation.graders.quantity import bare, conflict, without_base
from evaluation.records import Verdict

VERSION = "3"
"""Part of every score's protocol; raise it when the same answer may get another verdict."""
MAX_ANSWER = 2000
"""Characters. No reference answer of any benchmark is near it; longer text is not an answer and only keeps workers busy."""
START_S = 120.0
"""Seconds a worker may take to import sympy and math-verify; it is about one on an idle machine."""

_ROOT = Path(__file__).resolve().parents[2]
_WORKER = "evaluation.graders.maths_worker"


def without_worker(gold: str, answer: str) -> tuple[Verdict, str] | None:
    """Verdict on a pair that needs no algebra, with a detail; None where only math-verify can tell."""
    if len(answer) > MAX_ANSWER:
        return "wrong", f"{len(answer)} characters are no answer"
    left, right = whole_number(gold), whole_number(answer)
    if left is not None and right is not None:
        return ("correct" if left == right else "wrong"), ""
    # The very text of the gold answer is right, also where math-verify cannot read it (sentences, unions of sets).
    if as_text(gold) == as_text(answer):
        return "correct", ""
    gold, answer = prepare(gold, answer)
    if (reason := conflict(gold, answer)) is not None:
        return "wrong", reason
    gold, answer = without_base(gold, answer)
    left, right = whole_number(gold), whole_number(answer)
    if left is not None and right is not None:
        return ("correct" if left == right else "wrong"), ""
    if (
        (number := value(without_percent(gold))) is not None
        and "%" in gold + answer
        and number == value(without_percent(answer))
    ):
        return "correct", ""
    return None


def prepare(gold: str, answer: str) -> tuple[str, str]:
    """Both as they are compared: cleaned, and where the gold answer is one number, without units."""
    gold, answer = bare(clean(gold), marked=True), clean(answer)
    return gold, bare(answer) if value(without_percent(gold)) is not None else answer


class WorkerFailed(RuntimeError):
    """A worker could not be started, or ended without an answer."""


class MathsWorker:
    """One process that compares answers, started when it is first needed. Used by one thread at a time.

    Args:
        timeout_s: seconds on the clock for one item, from the moment that the worker, ready, is handed it.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.started = 0
        """How many processes this worker has been so far."""

    def compare(self, gold: str, answer: str) -> tuple[Verdict, str]:
        """Verdict on one pair, and a detail where it is not plain. Never raises for what an answer does to the worker."""
        try:
            process = self._ready()
            gold, answer = prepare(gold, answer)
            self._send(process, {"gold": gold, "answer": answer, "cpu_s": 2 * self.timeout_s + 5})
            reply = self._receive(process, self.timeout_s)
        except WorkerFailed as error:
            self._stop()
            return "grader_error", str(error)
        if reply is None:
            self._stop()
            return "timeout", f"math-verify took more than {self.timeout_s:g} s"
        if "error" in reply:
            # An exception out of math-verify may leave sympy's caches half-written.
            self._stop()
            return (
                ("timeout", "math-verify ran out of memory")
                if reply["error"] == "MemoryError"
                else ("grader_error", reply["error"])
            )
        return ("correct" if reply["equal"] else "wrong"), reply["detail"]

    def interrupt(self) -> None:
        """End the process from another thread while the worker is in use, for good; what it works on becomes a grader error."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process; only while no other thread uses the worker."""
        self.interrupt()
        self._stop()
        self._errors.close()

    def _ready(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise WorkerFailed("the grader is closed")
            if self._process is None:
                path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
                # A fixed hash seed: sympy's results can depend on the order of sets.
                environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"}
                self._process = subprocess.Popen(
                    [sys.executable, "-m", _WORKER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env=environment,
                    start_new_session=True,  # Ctrl-C at the terminal is for the parent, which ends its workers itself
                )
                self.started += 1
                fresh = True
            else:
                fresh = False
            process = self._process
        if fresh and self._receive(process, START_S) is None:
            raise WorkerFailed(f"the maths worker was not ready within {START_S:g} s")
        return process

    def _send(self, process: subprocess.Popen[bytes], message: dict[str, object]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise WorkerFailed("the maths worker died") from error

    def _receive(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """One line from the worker; None when the time is over. A worker writes one line per item, so no text is left between them."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return None
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise WorkerFailed(f"the maths worker ended (status {process.wait()}): {self._last_error()}")
            line += part
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_error(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on its error output"

    def _stop(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # an unsent item
                    stream.close()
