"""What the parsers of real data sets share: strict reading of a row's fields, and checks of the whole set."""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.records import Problem, RecordError

INTEGER = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+|[+-]?\d+")


def text(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The first of the columns `names` that the row has, as text with \\n line ends.

    Raises:
        RecordError: there is none of them, or it is empty, no text, or no valid one.
    """
    for name in names:
        if (value := row.get(name)) is not None:
            if not isinstance(value, str):
                raise RecordError(f"{where}: column {name!r} holds {type(value).__name__}, not text")
            value = value.replace("\r\n", "\n")
            if not value.strip():
                raise RecordError(f"{where}: column {name!r} is empty")
            return valid_text(value, f"{where}: column {name!r}")
    if empty := [name for name in names if name in row]:
        raise RecordError(f"{where}: column {empty[0]!r} is empty")
    raise RecordError(f"{where}: no column {' or '.join(map(repr, names))}; the row has {sorted(row)}")


def valid_text(value: str, what: str) -> str:
    """The text. Raises `RecordError` where no file can hold it and no tokenizer take it: half a pair of escapes,
    "\\ud83d", which JSON can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"{what} is no valid text: {error.reason}") from None
    return value


def integer(value: Any, where: str) -> str:
    """A whole number as plain decimal text: "073" -> "73", 27.0 -> "27", "1,234" -> "1234"; else `RecordError`."""
    if isinstance(value, str):
        value = value.strip()
        if INTEGER.fullmatch(value):
            return str(int(value.replace(",", "")))
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    raise RecordError(f"{where}: the answer {value!r} is not a whole number")


def check_set(problems: Sequence[Problem], expected: int, name: str) -> list[Problem]:
    """The problems. Raises `RecordError` unless they are `expected` in number and have distinct ids."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise RecordError(f"{name}: the problem {problem.id} occurs twice")
        seen.add(problem.id)
    if len(problems) != expected:
        raise RecordError(f"{name}: {len(problems)} problems, the complete set has {expected}")
    return list(problems)
