"""What came of a program: read from what the child wrote, to which a hostile program may have added."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import signal
from typing import Any, Literal

from evaluation.sandbox.values import unpack

MAX_RESULT = 64 * 2**20
"""Bytes of result that are read before a program is ended."""
LONGEST_HEADER = 8192
"""Bytes before the texts of a result; the message of an exception is cut at 300 characters."""


class SandboxError(RuntimeError):
    """The sandbox itself did not work; says nothing about the program."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        status: `done` (`texts` has one for each expression or input), `raised` (an exception; `texts` has those before it),
            `died` (the process ended without a result: exit, crash, too much output), `limit` (out of time).
        texts: results as text (see `evaluation.sandbox.values`), which a hostile program may have written itself.
        detail: the exception or the way it died.
        cpu_s: CPU seconds of the process, as the kernel counted them (0 when it was ended from outside).
    """

    status: Literal["done", "raised", "died", "limit"]
    texts: list[str]
    detail: str
    cpu_s: float

    @property
    def values(self) -> list[Any]:
        """The results; `UNSENDABLE` stands for one of another type. Raises `MalformedValue`. To compare them, see `comparison`, which reads
        no more than it must."""
        return [unpack(text) for text in self.texts]


def read_outcome(data: bytes, token: str, on_time: bool, cpu_limit_s: float, wanted: int) -> Outcome:
    """What the child wrote (see `child.py`). A program can write there as well, but only forge its own failure."""
    first = data[:1000].partition(b"\n")[0]
    if not first.startswith(b"ready"):
        reason = first.decode(errors="replace") or "the process ended before it was set up"
        raise SandboxError(reason if on_time else f"{reason} (out of time)")
    signal_number, exit_code, cpu_s = _ending(data)
    if not on_time:
        return Outcome("limit", [], "still running on the clock", cpu_s)
    if len(data) >= MAX_RESULT:
        return Outcome("died", [], "too much output", cpu_s)
    start = data.find(f"\n{token} ".encode())
    if start >= 0:
        return _result(data[start + len(token) + 2 :], wanted, cpu_s)
    # Half: the limit counts clock ticks, `cpu_s` the time that really ran; on a busy virtual machine they lie far apart.
    if signal_number == signal.SIGKILL and cpu_s >= 0.5 * cpu_limit_s:
        return Outcome("limit", [], f"CPU time limit of {math.ceil(cpu_limit_s)} s", cpu_s)
    how = f"signal {signal_number}" if signal_number else f"exit code {exit_code}"
    return Outcome("died", [], f"ended with {how} before the tests were done", cpu_s)


def _result(data: bytes, wanted: int, cpu_s: float) -> Outcome:
    """A line with status, detail and number of texts, then a line for each. Never split into more lines than there can be."""
    header = data[:LONGEST_HEADER].partition(b"\n")[0]
    try:
        status, detail, number = json.loads(header)
        lines = data[len(header) + 1 :].split(b"\n", wanted)
        if (
            status not in ("done", "raised")
            or not isinstance(detail, str)
            or not 0 <= number <= min(wanted, len(lines) - 1)
        ):
            raise ValueError("no header")
        texts = [line.decode() for line in lines[:number]]
    except (ValueError, TypeError, RecursionError) as error:
        return Outcome("died", [], f"unreadable result: {type(error).__name__}", cpu_s)
    # A message may hold half a surrogate pair, which no file can be written with, or what a terminal takes for a command.
    return Outcome(status, texts, "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in detail), cpu_s)


def _ending(data: bytes) -> tuple[int, int, float]:
    """Signal, exit code and CPU seconds of the last line, zeros where there is none."""
    found = re.search(rb"\nend (\d{1,3}) (\d{1,3}) (\d{1,9}\.\d{3})\n\Z", data[-100:])
    return (int(found[1]), int(found[2]), float(found[3])) if found else (0, 0, 0.0)
