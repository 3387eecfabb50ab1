"""What the parsers of real data sets share: strict reading of a row's fields, checks of the whole set, and the maths prompt."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from evaluation.records import Problem, RecordError

INTEGER = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+|[+-]?\d+")


def maths_prompt(question: str) -> str:
    """The instruction the VCORE paper trains and evaluates with (appendix B.3)."""
    return (
        f"You are a helpful and accurate assistant for solving the following math problem:\n{question}\n"
        "Please reason step by step, and put the correct answer within \\boxed{} at last."
    )


def choice_prompt(question: str, options: list[str]) -> str:
    """The maths prompt's instruction, with the options and the letter asked for."""
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
    return (
        f"You are a helpful and accurate assistant for solving the following multiple-choice problem:\n{question}\n{listed}\n"
        "Please reason step by step, and put the letter of the correct option within \\boxed{} at last."
    )


def function_prompt(prompt: str) -> str:
    """The user message for a function to complete."""
    return (
        f"Complete the following Python function.\n\n```python\n{prompt.strip()}\n```\n\n"
        "Put the complete program, with every import and helper it needs, into one Python code block at the end."
    )


def text(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The first of the columns `names` that the row has, as text with \\n line ends; `RecordError` when there is none or it is empty."""
    for name in names:
        if row.get(name) is not None:
            value = row[name]
            if not isinstance(value, str):
                raise RecordError(f"{where}: column {name!r} holds {type(value).__name__}, not text")
            value = value.replace("\r\n", "\n")
            if not value.strip():
                raise RecordError(f"{where}: column {name!r} is empty")
            return value
    raise RecordError(f"{where}: no column {' or '.join(map(repr, names))}; the row has {sorted(row)}")


def integer(value: Any, where: str) -> str:
    """A whole number as plain decimal text: "073" -> "73", 27.0 -> "27", "1,234" -> "1234"; else `RecordError`."""
    if isinstance(value, str):
        value = value.strip()
        if INTEGER.fullmatch(value):
            return str(int(value.replace(",", "")))
        try:
            value = float(value)
        except ValueError:
            raise RecordError(f"{where}: the answer {value!r} is not a whole number") from None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    raise RecordError(f"{where}: the answer {value!r} is not a whole number")


def distinct(inputs: Iterable[Any]) -> list[Any]:
    """The test inputs (JSON values) without repetitions, in their order.

    EvalPlus' release files repeat some inputs, its data sets on the hub do not: read this way they are the same tests.
    """
    return list({json.dumps(value): value for value in inputs}.values())


def check_set(problems: Sequence[Problem], expected: int, name: str) -> list[Problem]:
    """The problems, if they are `expected` in number and have distinct ids; else `RecordError`."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise RecordError(f"{name}: the problem {problem.id} occurs twice")
        seen.add(problem.id)
    if len(problems) != expected:
        raise RecordError(f"{name}: {len(problems)} problems, the complete set has {expected}")
    return list(problems)
