"""The results of a program's cases, read from what the child wrote (see `child/cases.py`), to which a hostile program
may have added: it can forge what it printed, which is what it prints anyway."""

import binascii
import dataclasses
import json
from typing import Literal

from evaluation.sandbox.result import MAX_RESULT, ending, printable

LONGEST_HEAD = 8192  # bytes of a line before the output; the message of an exception is cut at 300 characters


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """How a program ended one case, and what it printed or returned."""

    status: Literal["done", "raised", "died", "limit"]
    """As of a `ProgramResult`; a program that leaves its process with exit code 0 is `done`."""
    output: bytes
    """What it printed, or the text of the value that its function returned (see `evaluation.sandbox.values`)."""
    detail: str
    """The exception or the way it died."""


def read_cases(data: bytes, token: str, on_time: bool, cpu_limit_s: float, number: int) -> list[CaseResult]:
    """The results of up to `number` cases, at least one; all but the last are `done`. Raises `SandboxError` where the
    program never ran."""
    ended = ending(data, on_time, cpu_limit_s)
    mark, results, place = f"\n{token} ".encode(), list[CaseResult](), 0
    while len(results) < number and (place := data.find(mark, place)) >= 0:
        place += len(mark)
        end = data.find(b"\n", place)
        line = data[place : end if end >= 0 else len(data)]
        if line == b"stop" and results:
            return results
        result = _case(line, len(results)) if end >= 0 else None
        if result is None:
            break
        results.append(result)
        if result.status != "done":
            return results
    if len(results) < number:
        results.append(_last(data, CaseResult(_status(ended.status), b"", ended.detail), on_time))
    return results


def _status(status: str) -> Literal["died", "limit"]:
    return "limit" if status == "limit" else "died"


def _case(line: bytes, number: int) -> CaseResult | None:
    """The result of the case with this number; None for anything else."""
    try:
        found, status, rest = line.split(b" ", 2)
        detail, output = rest[:LONGEST_HEAD].rpartition(b'" ')[0] + b'"', rest.rpartition(b" ")[2]
        text = json.loads(detail)
        if int(found) != number or status not in (b"done", b"raised") or not isinstance(text, str):
            return None
        ended: Literal["done", "raised"] = "done" if status == b"done" else "raised"
        return CaseResult(ended, binascii.a2b_base64(output), printable(text))
    except (ValueError, RecursionError):
        return None


def _last(data: bytes, ended: CaseResult, on_time: bool) -> CaseResult:
    """The result of the case in which the process ended: what it printed where it left with exit code 0."""
    start = data.rfind(b"\nrest ")
    if start < 0 or not on_time or len(data) >= MAX_RESULT:
        return ended
    try:
        return CaseResult("done", binascii.a2b_base64(data[start + 6 : data.index(b"\n", start + 6)]), "")
    except ValueError:
        return ended
