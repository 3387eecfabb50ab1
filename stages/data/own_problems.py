"""Benchmarks of a user's own: problems of a local file, whose columns the settings name as those of training data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.custom_problems import COLUMNS, problems_of, read_custom
from evaluation.harness.nearest import nearest
from evaluation.loading import read_file
from evaluation.records import Problem, RecordError
from stages.data.programs import row_tests
from stages.data.turns import gold_of, request_in
from stages.data.values import has_column, text_of, value_of
from stages.harness.context import StageError
from stages.harness.own_files import BenchmarkColumns, CustomProblems

Rows = Sequence[tuple[int, Mapping[str, Any]]]


def own_problems(own: CustomProblems, name: str) -> list[Problem]:
    """The problems of the benchmark `name`, which is a file of the user's.

    Raises:
        StageError: the file cannot be read, a column that is named is in no row, or a row is no problem, whose number
            the message has.
    """
    path, unmapped = Path(own.file).expanduser(), own.columns == BenchmarkColumns()
    try:
        if unmapped:
            return read_custom(path, name, own.kind, own.template)
        label = f"benchmarks.{name}.own"
        rows = [(number, _as_ours(row, own, label, number)) for number, row in rows_with_columns(own, label)]
        return problems_of(rows, path, name, own.kind, own.template)
    except (RecordError, OSError) as error:
        fix = f"Correct the file, or benchmarks.{name}.own.columns."
        if unmapped:
            fix = f"The file needs the columns {COLUMNS}; where they have other names, set own.columns (docs/own.md)."
        raise StageError(f"benchmark {name}: {error}", fix) from error


def rows_with_columns(own: CustomProblems, label: str) -> Rows:
    """The file's numbered rows.

    Args:
        own: the file and its columns.
        label: the setting that names the file, for messages: `benchmarks.exam.own`.

    Raises:
        StageError: none of the rows has a column that the settings name.
        RecordError: the file is damaged, or holds something else.
        OSError: it cannot be read.
    """
    path = Path(own.file).expanduser()
    rows = list(read_file(path))
    there = dict.fromkeys(column for _, row in rows for column in row)
    default = BenchmarkColumns()
    for role, column in own.columns.named():
        is_named = getattr(own.columns, role) != getattr(default, role)
        if is_named and rows and not any(has_column(row, column) for _, row in rows):
            what = f"no row of {path} has a column {column!r}{nearest(column, there)}"
            raise StageError(f"{label}.columns.{role}: {what}", f"Correct {label}.columns.{role}.")
    return rows


def _as_ours(row: Mapping[str, Any], own: CustomProblems, label: str, number: int) -> dict[str, Any]:
    """The row with the project's own names of columns. Raises `StageError`."""
    columns, code = own.columns, own.kind == "code"
    named = columns.model_dump().values()
    taken = {column for one in named for column in (one if isinstance(one, list) else [one])}
    answer = columns.answer
    # With tests by cases no reference program is run, and a row may lack it.
    unneeded = code and (not has_column(row, answer) or value_of(row, answer, label, number) in (None, ""))
    ours: dict[str, Any] = {
        "prompt": request_in(row, columns, label, number),
        "gold": None if unneeded else gold_of(row, answer, label, number),
        "id": _optional(row, columns.id, "id", taken),
    }
    if code:
        tested = columns if columns.tests is not None else columns.model_copy(update={"tests": "tests"})
        ours["tests"] = row_tests(row, tested, ours["gold"] or "", label, number)
        beginning = columns.beginning or "beginning"
        if _optional(row, columns.beginning, "beginning", taken) is not None:
            ours["beginning"] = text_of(row, beginning, label, number)
    return ours


def _optional(row: Mapping[str, Any], named: str | None, usual: str, taken: set[str]) -> Any:
    """A value that rows may lack: of the column that is named, or else of the usual one, unless that holds something
    else."""
    column = named or usual
    if (named is None and usual in taken) or not has_column(row, column):
        return None
    value = value_of(row, column, "", 0)
    return None if value == "" else value  # an empty cell of a table
