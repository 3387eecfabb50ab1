"""The result of a program, read from what the child wrote, to which a hostile program may have added."""

import dataclasses
import json
import math
import re
import signal
from typing import Any, Literal

from evaluation.sandbox.values import unpack

MAX_RESULT = 64 * 2**20  # bytes of result that are read before a program is ended
LONGEST_HEADER = 8192  # bytes before the texts of a result; the message of an exception is cut at 300 characters


class SandboxError(RuntimeError):
    """The sandbox itself did not work; says nothing about the program."""


@dataclasses.dataclass(frozen=True)
class ProgramResult:
    """How a program ended, and what it computed."""

    status: Literal["done", "raised", "died", "limit"]
    """`done` (`texts` has one for each expression or input), `raised` (an exception; `texts` has those before it),
    `died` (the process ended without a result: exit, crash, too much output), `limit` (out of time)."""
    texts: list[str]
    """Values as text (see `evaluation.sandbox.values`), which a hostile program may have written itself."""
    detail: str
    """The exception or the way it died."""
    cpu_s: float
    """CPU seconds of the process, as the kernel counted them (0 when it was ended from outside)."""

    @property
    def values(self) -> list[Any]:
        """The values, for `comparison` reads no more of the texts than it must; `UNSENDABLE` stands for one of another
        type. Raises `MalformedValue`."""
        return [unpack(text) for text in self.texts]


def read_result(data: bytes, token: str, on_time: bool, cpu_limit_s: float, most: int) -> ProgramResult:
    """The result, with `most` texts at most, in what a child wrote, `on_time` or not. A program can write there too,
    but only forge its own failure. Raises `SandboxError` where it never ran."""
    ended = ending(data, on_time, cpu_limit_s)
    start = data.find(f"\n{token} ".encode()) if on_time and len(data) < MAX_RESULT else -1
    return ended if start < 0 else _parse(data[start + len(token) + 2 :], most, ended.cpu_s)


def ending(data: bytes, on_time: bool, cpu_limit_s: float) -> ProgramResult:
    """How a program ended that wrote no result. Raises `SandboxError` where it never ran."""
    first = data[:1000].partition(b"\n")[0]
    if not first.startswith(b"ready"):
        reason = first.decode(errors="replace") or "the process ended before it was set up"
        raise SandboxError(reason if on_time else f"{reason} (out of time)")
    end = re.search(rb"\nend (\d{1,3}) (\d{1,3}) (\d{1,9}\.\d{3})\n\Z", data[-100:])
    signal_number, exit_code, cpu_s = (int(end[1]), int(end[2]), float(end[3])) if end else (0, 0, 0.0)
    if not on_time:
        return ProgramResult("limit", [], "still running on the clock", cpu_s)
    if len(data) >= MAX_RESULT:
        return ProgramResult("died", [], "too much output", cpu_s)
    # Half: the limit counts clock ticks, `cpu_s` the time that really ran; a busy virtual machine puts them far apart.
    if signal_number == signal.SIGKILL and cpu_s >= 0.5 * cpu_limit_s:
        return ProgramResult("limit", [], f"CPU time limit of {math.ceil(cpu_limit_s)} s", cpu_s)
    how = f"signal {signal_number}" if signal_number else f"exit code {exit_code}"
    return ProgramResult("died", [], f"ended with {how} before the tests were done", cpu_s)


def _parse(data: bytes, most: int, cpu_s: float) -> ProgramResult:
    """A line with status, detail and number of texts, and one for each; not split into more lines than can be there."""
    header = data[:LONGEST_HEADER].partition(b"\n")[0]
    try:
        status, detail, number = json.loads(header)
        lines = data[len(header) + 1 :].split(b"\n", most)
        well_formed = status in ("done", "raised") and isinstance(detail, str)
        if not well_formed or not 0 <= number <= min(most, len(lines) - 1):
            raise ValueError("no header")
        texts = [line.decode() for line in lines[:number]]
    except (ValueError, TypeError, RecursionError) as error:
        return ProgramResult("died", [], f"unreadable result: {type(error).__name__}", cpu_s)
    return ProgramResult(status, texts, printable(detail), cpu_s)


def printable(text: str) -> str:
    """The text without half surrogate pairs, which no file can hold, and without what a terminal takes for commands."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
