"""Values of a row, by the names or paths of their columns."""

import math
from collections.abc import Mapping
from typing import Any

from stages.harness.context import StageError

MOST_WEIGHT = 1_000_000
"""The largest weight of a row: weights are relative to 1, and a larger one is a mistake."""


def value_of(row: Mapping[str, Any], column: str, label: str, number: int, setting: str = "columns") -> Any:
    """A row's value, by the column's name or by its path to inside of one (`reward_model.ground_truth`,
    `generations.0`); `StageError` where there is none."""
    try:
        return _found(row, column)
    except KeyError:
        raise StageError(
            f"{label}: row {number} has no column {column!r}; it has {', '.join(sorted(row))}",
            f"Set {label}.{setting}.",
        ) from None


def has_column(row: Mapping[str, Any], column: str) -> bool:
    """Whether `value_of` finds a value, which may be null."""
    try:
        _found(row, column)
    except KeyError:
        return False
    return True


def _found(row: Mapping[str, Any], column: str) -> Any:
    """The value; `KeyError` where there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise KeyError(column)
    return value


def weight_of(row: Mapping[str, Any], column: str, label: str, number: int) -> float:
    """A row's weight; `StageError` where it is none: no number, negative, or not finite."""
    value = value_of(row, column, label, number)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_WEIGHT:
        raise StageError(
            f"{label}: row {number}: column {column!r} is {value!r:.200}, expected a weight: a number from 0 to "
            f"{MOST_WEIGHT:,}",
            "Correct or remove that row; weight 1 leaves its loss as it is, and 0 takes it away.",
        )
    return float(value)


def text_of(row: Mapping[str, Any], column: str, label: str, number: int) -> str:
    """A row's text or number, also as the only item of a list, as text with \\n line ends; `StageError` where it is
    anything else, or empty."""
    value = value_of(row, column, label, number)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        value = str(value)
    where, fix = f"{label}: row {number}: column {column!r}", "Correct or remove that row."
    if not isinstance(value, str) or not value.strip():
        if isinstance(value, list) and value:
            fix = f"Where every row is so, name one of them: {column}.0."
        elif isinstance(value, dict):
            fix = f"Where every row is so, name what is inside: {column}.{next(iter(value), 'NAME')}."
        raise StageError(f"{where} is {value!r:.200}, expected text", fix)
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a pair of escapes, "\ud83d": JSON has it, no file can
        raise StageError(f"{where} is no valid text: {error.reason}", fix) from None
    return value.replace("\r\n", "\n")
