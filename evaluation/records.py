"""The three record types that evaluation reads and writes, one JSON object per line.

Nothing here imports another module of ours: the records are the contract between loading, sampling and grading, and between
this package and files made elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

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
    """`stop`, `length` (cut at the token limit), `prompt_too_long` (never sampled; the completion is empty), or `unknown` where whoever
    sampled it elsewhere did not say."""
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
    with open(path, "wb") as file:
        for row in rows:
            value = dataclasses.asdict(row) if dataclasses.is_dataclass(row) and not isinstance(row, type) else row
            file.write(_line(value))
            n += 1
    return n


def _line(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except (
        UnicodeEncodeError
    ):  # half of a surrogate pair, as JSON can hold and UTF-8 cannot: written as it was read, as \\ud83d
        return json.dumps(value).encode() + b"\n"


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
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else open(path, encoding="utf-8-sig") as file
    ):
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
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise RecordError(f"{where}: not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_records(path: str | Path, record: type[T]) -> list[T]:
    """Read a file of one record type strictly: a missing, unknown or ill-typed field is a `RecordError` with its line."""
    return [make_record(row, record, f"{path}:{number}") for number, row in read_rows(path)]


def make_record(row: Mapping[str, Any], record: type[T], where: str) -> T:
    """The record whose fields the row holds, all of them and no others. Raises `RecordError`, which begins with `where`."""
    required, types = _SHAPES[record]
    missing, unknown = sorted(required - row.keys()), sorted(row.keys() - types.keys())
    if missing or unknown:
        parts = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
        raise RecordError(f"{where}: not a {record.__name__}: {', '.join(parts)}")
    for name, value in row.items():
        if not _is_of(value, types[name]) or (name in _COUNTS and value < 0):
            raise RecordError(
                f"{where}: {name} is {value!r:.80}, not {_said(types[name])}{' from 0 up' if name in _COUNTS else ''}"
            )
    return record(**row)


_COUNTS = {"sample", "prompt_tokens", "completion_tokens"}
_NAMES = {str: "text", int: "a whole number", dict: "an object", type(None): "null"}


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's type; true and false are no numbers."""
    origin = get_origin(kind)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is UnionType:
        return any(_is_of(value, one) for one in get_args(kind))
    return isinstance(value, origin or kind) and not (kind is int and isinstance(value, bool))


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is UnionType:
        return " or ".join(map(_said, get_args(kind)))
    return _NAMES[get_origin(kind) or kind]


def _shape(record: type) -> tuple[set[str], dict[str, Any]]:
    """Names of the fields without a default, and the type of each field."""
    fields = dataclasses.fields(record)
    required = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    return required, get_type_hints(record)


_SHAPES = {record: _shape(record) for record in (Problem, Generation, Score)}
