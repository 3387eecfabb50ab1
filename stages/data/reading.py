"""Reading sources: the problems of our tasks, and the rows of files and hub datasets, chosen and checked one by one."""

import dataclasses
import gzip
import itertools
import json
import math
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.base import Benchmark
from evaluation.grading import Grader
from evaluation.hub import load_dataset
from evaluation.loading import load
from evaluation.records import Problem, RecordError, open_text, read_rows
from stages.data.settings import DataSettings, SourceSettings
from stages.harness.context import Context, StageError

Numbered = tuple[int, Mapping[str, Any]]
"""A row and its number: the line of a .jsonl file, else counted from 1, in the order in which rows are drawn."""

VERIFY_BATCH = 256
"""Demonstrations graded at once."""
SHUFFLE_BUFFER = 20_000
"""Rows of a hub dataset that are held to draw the next one from: some hundred megabytes of long demonstrations."""


def load_task(
    benchmark: Benchmark,
    split: str,
    n: int | None,
    seed: int,
    label: str,
    ctx: Context[DataSettings],
    *,
    shuffle: bool = False,
) -> list[Problem]:
    """`n` problems of a task of ours: the first ones, or with `shuffle` any. Raises `StageError`."""
    try:
        problems = load(
            benchmark, split, ctx.machine.data_dir, None if shuffle else n, seed, revision=_commit(label, ctx)
        )
    except (ValueError, OSError) as error:  # RecordError, LoadError, and generated problems that do not turn up
        raise StageError(
            f"{label}: {error}", "Check the file, or data_dir; the expected columns are in docs/data.md."
        ) from error
    if not problems:
        raise StageError(f"{label}: no problems in split {split}", "The file or split is empty.")
    return list(itertools.islice(_shuffled(problems, seed), n)) if shuffle else problems


def seed_of(source: SourceSettings, ctx: Context[DataSettings]) -> int:
    """The source's own seed, or the pipeline's."""
    return ctx.seed if source.seed is None else source.seed


def read(source: SourceSettings, label: str, ctx: Context[DataSettings]) -> list[Numbered]:
    """The rows of a local file, or of a hub dataset at its resolved commit, that are kept, at most `source.rows` of
    them.

    Raises:
        StageError: the source cannot be read, a row is broken, or none is kept.
    """
    from datasets.exceptions import DatasetsError

    passed = _Passed()
    try:
        taken = list(itertools.islice(_kept(_all_rows(source, label, ctx), source, label, ctx, passed), source.rows))
    except RecordError as error:
        raise StageError(f"{label}: {error}", "Mend or remove that line.") from error
    except (OSError, ValueError, DatasetsError) as error:
        raise StageError(
            f"{label}: cannot be read: {error}", "Check the path, the split and the config of the dataset."
        ) from error
    name = source.file or source.hub
    if not passed.read:
        raise StageError(f"{label}: {name} has no rows", "The file, dataset or split is empty.")
    if not taken:
        reason = f"none of {passed.read} passes `where` (the first: {passed.first})"
        if passed.where:
            reason = f"of {passed.read}, {passed.where} pass `where`, and none is verified"
        fix = f"Look at {label}.where and {label}.verified."
        raise StageError(f"{label}: {name} has no rows that are kept: {reason}", fix)
    return taken


def value_of(row: Mapping[str, Any], column: str, label: str, number: int, setting: str = "columns") -> Any:
    """A row's value; `StageError` where it has no such column."""
    if column not in row:
        raise StageError(
            f"{label}: row {number} has no column {column!r}; it has {', '.join(sorted(row))}",
            f"Set {label}.{setting}.",
        )
    return row[column]


def text_of(row: Mapping[str, Any], column: str, label: str, number: int) -> str:
    """A row's text or number, as text with \\n line ends; `StageError` where it is anything else, or empty."""
    value = value_of(row, column, label, number)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise StageError(
            f"{label}: row {number}: column {column!r} is {value!r:.200}, expected text", "Mend or remove that row."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a pair of escapes, "\ud83d": JSON has it, no file can
        raise StageError(
            f"{label}: row {number}: column {column!r} is no valid text: {error.reason}", "Mend or remove that row."
        ) from None
    return value.replace("\r\n", "\n")


@dataclasses.dataclass
class _Passed:
    """How many rows were read and how many of them pass `where`; and what the first has in its columns."""

    read: int = 0
    where: int = 0
    first: str = ""


def _commit(label: str, ctx: Context[DataSettings]) -> str | None:
    commits: dict[str, str] = ctx.details.get("commits", {})
    return commits.get(label)


def _all_rows(source: SourceSettings, label: str, ctx: Context[DataSettings]) -> Iterable[Numbered]:
    """Every row, in the source's order or drawn at random."""
    import datasets

    seed = seed_of(source, ctx)
    if source.file is None:
        # Streamed: of a dataset of fifty gigabytes only what is needed is fetched.
        assert source.hub is not None
        commit, files = _commit(label, ctx), source.hub_files
        streamed = load_dataset(source.hub, source.hub_config, source.split, commit, files=files, streaming=True)
        return enumerate(
            streamed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER) if source.shuffle else streamed, start=1
        )
    path = Path(source.file).expanduser()
    if path.suffix == ".parquet":
        table = datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
        numbers: Iterable[int] = range(len(table))
        if source.shuffle:
            numbers = _shuffled(range(len(table)), seed)
        return ((number + 1, table[number]) for number in numbers)
    rows = enumerate(_array(path), start=1) if path.name.removesuffix(".gz").endswith(".json") else read_rows(path)
    return _shuffled(list(rows), seed) if source.shuffle else rows


def _shuffled(rows: Sequence[Any], seed: int) -> Iterator[Any]:
    """All rows in an order that the seed decides: the first few are a sample, and a larger sample holds the smaller."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return (rows[place] for place in order)


def _array(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that is one JSON array of objects."""
    try:
        with open_text(path) as file:
            rows = json.load(file)
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"{path}: not a JSON array: {error}; one object a line is a .jsonl file") from error
    if not isinstance(rows, list):
        raise RecordError(
            f"{path}: expected a JSON array of objects, found {type(rows).__name__}; one object a line is a .jsonl file"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RecordError(f"{path}: row {number}: expected a JSON object, found {type(row).__name__}")
    return rows


def _kept(
    rows: Iterable[Numbered], source: SourceSettings, label: str, ctx: Context[DataSettings], passed: _Passed
) -> Iterator[Numbered]:
    """The rows that pass the source's conditions, graded in batches where the answer is verified."""
    passing = _passing(rows, source, label, passed)
    if not source.verified:
        yield from passing
        return
    columns = source.columns
    assert columns.answer is not None  # checked by SourceSettings
    assert columns.completion is not None
    failed = 0
    with Grader(ctx.machine.threads) as grader:
        while batch := list(itertools.islice(passing, VERIFY_BATCH)):
            items = []
            for number, row in batch:
                gold = text_of(row, columns.answer, label, number)
                completion = text_of(row, columns.completion, label, number)
                items.append((Problem(str(number), "data", "maths", "", gold), completion, "stop"))
            for entry, graded in zip(batch, grader.grade(items), strict=True):
                if graded.verdict == "correct":
                    yield entry
                else:
                    failed += 1
    ctx.note(f"{label}: {failed} demonstrations are left out, their answer is not the gold one")


def _passing(rows: Iterable[Numbered], source: SourceSettings, label: str, passed: _Passed) -> Iterator[Numbered]:
    for number, row in rows:
        values = {column: value_of(row, column, label, number, "where") for column in source.where}
        passed.first = passed.first or ", ".join(f"{column} {value!r:.60}" for column, value in values.items())
        passed.read += 1
        pairs = [(value, source.where[column]) for column, value in values.items()]
        # 1 is not True here, as it is not in JSON.
        if all(one == other and isinstance(one, bool) == isinstance(other, bool) for one, other in pairs):
            passed.where += 1
            yield number, row
