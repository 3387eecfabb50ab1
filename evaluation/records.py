"""The three record types that evaluation reads and writes, one JSON object a line.

They are the contract between loading, sampling and grading, and between this package and files made elsewhere, so
nothing else of the package is imported here.
"""

from __future__ import annotations  # _EXPECTED is found by their texts

import contextlib
import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar, get_args

from pydantic import ConfigDict, Field, StrictInt, StrictStr, TypeAdapter, ValidationError, with_config

Kind = Literal["maths", "code", "choice"]
Verdict = Literal["correct", "wrong", "no_answer", "timeout", "grader_error"]
ThoughtEnding = Literal["finished", "forced", "cut", "none"]
"""Under a thinking budget: the model closed its thoughts itself; the budget closed one; the completion ended inside
one; there was none."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Count = Annotated[StrictInt, Field(ge=0)]
STRICT = ConfigDict(extra="forbid")


class RecordError(ValueError):
    """A row that is not a valid record; the message names the file and the line."""


@with_config(STRICT)
@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem of a benchmark or of an RL prompt set."""

    id: StrictStr
    benchmark: StrictStr
    kind: Kind
    prompt: StrictStr
    """The user message exactly as the model's chat template receives it, instruction included."""
    gold: StrictStr
    """The reference: the answer for maths, the reference program for code, the letter for multiple choice."""
    tests: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What a code grader needs (see `evaluation.graders.code`); empty for other kinds."""
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What a benchmark keeps for itself. `completion` is the beginning that a completion prompt sends."""
    context: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """The turns before `prompt`: a system message and earlier turns, each with role and content."""


@with_config(STRICT)
@dataclasses.dataclass(frozen=True)
class Generation:
    """One sampled completion. Token counts are in tokens of the model that sampled it."""

    benchmark: StrictStr
    problem_id: StrictStr
    sample: Count
    prompt: StrictStr
    """The rendered text."""
    completion: StrictStr
    finish_reason: StrictStr
    """`stop`, `length` (cut at the token limit), `prompt_too_long` (never sampled; the completion is empty), or
    `unknown` where it was sampled elsewhere and nothing is said."""
    prompt_tokens: Count
    completion_tokens: Count
    seed: StrictInt | None
    thinking: ThoughtEnding | None = None
    """How the thought ended, where a budget limited it."""


@with_config(STRICT)
@dataclasses.dataclass(frozen=True)
class Score:
    """The verdict on one generation, under the same (benchmark, problem_id, sample)."""

    benchmark: StrictStr
    problem_id: StrictStr
    sample: Count
    verdict: Verdict
    extracted: StrictStr | None
    """The answer or the program that was judged; None where there was none."""
    gold: StrictStr
    detail: StrictStr = ""


_EXPECTED = {
    "StrictStr": "text",
    "StrictStr | None": "text or null",
    "StrictInt | None": "a whole number or null",
    "Count": "a whole number from 0 up",
    "dict[str, Any]": "an object",
    "list[dict[str, str]]": "a list of messages",
    "Kind": f"one of {', '.join(get_args(Kind))}",
    "ThoughtEnding | None": f"one of {', '.join(get_args(ThoughtEnding))}, or null",
    "Verdict": f"one of {', '.join(VERDICTS)}",
}
"""The type of a field, as it is written above -> what a message calls it."""
_ADAPTERS: dict[type, TypeAdapter[Any]] = {record: TypeAdapter(record) for record in (Problem, Generation, Score)}
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
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold and UTF-8 cannot: written as \\ud83d
        return json.dumps(value).encode() + b"\n"


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a text file in UTF-8, compressed where its name ends in .gz, with or without a byte order mark; `newline` as
    `open` has it."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return open(path, encoding="utf-8-sig", newline=newline)


class KeyTwice(ValueError):
    """A JSON object that has a key twice."""


def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's pairs as a dict, for the parser; Python's own keeps the last of two values and says nothing.

    Raises:
        KeyTwice: a key is there twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyTwice(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return value


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each non-empty line of a .jsonl or .jsonl.gz file.

    Raises:
        RecordError: a line is not a JSON object or has a key twice, is not UTF-8, or a compressed file ends too early.
    """
    number = 0
    with open_text(Path(path)) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
        except UnicodeDecodeError as error:
            raise RecordError(f"{path}:{line_not_text(Path(path))}: not text in UTF-8 ({error.reason})") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RecordError(f"{path}: damaged after line {number}: {error}") from error


def line_not_text(path: Path) -> int:
    """The number of the first line that is not UTF-8, which a decoder that reads ahead does not know; of the last line
    that can be read, where a compressed file is cut off there."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        number = 0
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):  # it is damaged as well: after that line
            for number, line in enumerate(file, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    return number
    return number


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=one_of_each)
    except KeyTwice as error:
        raise RecordError(f"{where}: {error}") from error
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        reason = "a number of thousands of digits" if "int_max_str_digits" in str(error) else error
        raise RecordError(f"{where}: not a JSON object: {reason}") from error
    if not isinstance(value, dict):
        known = {list: "an array", str: "text", int: "a number", float: "a number", bool: str(value).lower()}
        what = known.get(type(value), "null")
        raise RecordError(f"{where}: expected a JSON object, found {what}; each line is one object")
    return value


def read_records(path: str | Path, record: type[T]) -> list[T]:
    """Read a file of one record type strictly: a missing, unknown or ill-typed field raises `RecordError`. Tests of a
    problem that lie in a file of their own are named by a path that is not relative to this file's folder."""
    records = [make_record(row, record, f"{path}:{number}") for number, row in read_rows(path)]
    for one in records:
        if isinstance(one, Problem) and isinstance(stored := one.tests.get("packed"), dict) and "file" in stored:
            stored["file"] = str(Path(path).parent / str(stored["file"]))
    return records


def make_record(row: Mapping[str, Any], record: type[T], where: str) -> T:
    """The record whose fields the row holds, all of them and no others.

    Raises:
        RecordError: it does not; the message begins with `where`.
    """
    try:
        made: T = _ADAPTERS[record].validate_python(row)
    except ValidationError as error:
        problems = [(problem["type"], str(problem["loc"][0])) for problem in error.errors()]
        missing = sorted(name for kind, name in problems if kind == "missing")
        unknown = sorted(name for kind, name in problems if kind == "unexpected_keyword_argument")
        if missing or unknown:
            parts = [f"{what} {names}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
            raise RecordError(f"{where}: not a {record.__name__}: {', '.join(parts)}") from None
        name = problems[0][1]
        expected = _EXPECTED[str(record.__annotations__[name])]
        raise RecordError(f"{where}: {name} is {row[name]!r:.80}, not {expected}") from None
    return made
