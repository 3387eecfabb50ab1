"""The three record types that evaluation reads and writes, one JSON object per line.

Nothing here imports another module of ours: the records are the contract between loading, sampling and grading, and between
this package and files made elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

Kind = Literal["maths", "code", "choice"]
Verdict = Literal["correct", "wrong", "no_answer", "timeout", "grader_error"]
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "no_answer", "timeout", "grader_error")


class RecordError(ValueError):
    """A row that is not a valid record; the message names the file and the line."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem of a benchmark or of an RL prompt set.

    `prompt` is the user message exactly as the model's chat template will receive it (instruction included). `gold` is the
    reference: the answer for maths, the reference program for code, the letter for multiple choice. `tests` holds what a code
    grader needs (see `evaluation.graders.code`) and is empty otherwise.
    """

    id: str
    benchmark: str
    kind: Kind
    prompt: str
    gold: str
    tests: dict[str, Any] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Generation:
    """One sampled completion. `prompt` is the rendered text; token counts are in tokens of the model that sampled it."""

    benchmark: str
    problem_id: str
    sample: int
    prompt: str
    completion: str
    finish_reason: str
    """`stop`, `length` (cut at the token limit) or `prompt_too_long` (never sampled; the completion is empty)."""
    prompt_tokens: int
    completion_tokens: int
    seed: int | None


@dataclasses.dataclass(frozen=True)
class Score:
    """The verdict on one generation, under the same (benchmark, problem_id, sample)."""

    benchmark: str
    problem_id: str
    sample: int
    verdict: Verdict
    extracted: str | None
    gold: str
    detail: str = ""


T = TypeVar("T", Problem, Generation, Score)


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write dataclasses or plain mappings, one JSON object a line; returns how many."""
    n = 0
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            value = dataclasses.asdict(row) if dataclasses.is_dataclass(row) and not isinstance(row, type) else row
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
            n += 1
    return n


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each non-empty line of a .jsonl or .jsonl.gz file.

    Raises:
        RecordError: with its line, for one that is not a JSON object or not UTF-8, and for a compressed file that ends too early.
    """
    import gzip
    import zlib

    path = Path(path)
    number = 0
    # utf-8-sig: some editors begin a file with a mark of its encoding.
    with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else open(path, encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
        except UnicodeDecodeError as error:
            raise RecordError(f"{path}:{number + 1}: not text in UTF-8 ({error.reason})") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RecordError(f"{path}: damaged after line {number}: {error}") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{where}: not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_records(path: str | Path, record: type[T]) -> list[T]:
    """Read a file of one record type strictly: a missing or unknown field is a `RecordError` with its line."""
    names = {f.name for f in dataclasses.fields(record)}
    required = {f.name for f in dataclasses.fields(record) if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    out: list[T] = []
    for number, row in read_rows(path):
        missing, unknown = sorted(required - row.keys()), sorted(row.keys() - names)
        if missing or unknown:
            parts = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
            raise RecordError(f"{path}:{number}: not a {record.__name__}: {', '.join(parts)}")
        out.append(record(**row))
    return out
