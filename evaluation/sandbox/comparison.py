"""Comparing what a program computed with what it should have: on texts (see `evaluation.sandbox.values`), for a hostile
program may have written any text at all.

Nothing here takes much longer than reading the expected value: a text far longer than that is of another value, and is
not read.
"""

import functools
import math
import reprlib
from collections.abc import Sequence
from typing import Any

from evaluation.sandbox.child.program import OTHER
from evaluation.sandbox.values import Digest, MalformedValue, canonical, unpack

LONGER, ROOM = 16, 4096
"""Equal values may have texts of different length: 1 and 1.0, 2**1000 and 2.0**1000. None is longer than LONGER times
the other + ROOM."""
LONGEST_SHOWN = 2**16  # characters of a text that is read to show a little of its value


class Expected:
    """The value that a program should compute. Raises `MalformedValue` where a part of it is equal to nothing."""

    def __init__(self, text: str) -> None:
        if OTHER in text:  # within a string, its quotes would be escaped
            raise MalformedValue("a value that cannot be compared")
        self.text = text

    @functools.cached_property
    def canonical(self) -> str:
        return canonical(self.text)

    @functools.cached_property
    def value(self) -> Any:
        return unpack(self.text)

    def _may_be(self, text: str) -> bool:
        return len(text) <= LONGER * len(self.text) + ROOM

    def equals(self, text: str) -> bool:
        """Whether the text is of an equal value, as Python has it, except that nan is nan."""
        if text == self.text:
            return True
        try:
            return self._may_be(text) and canonical(text) == self.canonical
        except MalformedValue:
            return False

    def is_near(self, text: str, atol: float) -> bool:
        """Whether the value is equal, or is with floats within `atol`; 0 stands for 1e-6 where all expected values are
        floats, and for equality otherwise."""
        if self.equals(text):
            return True
        try:
            if not self._may_be(text) or (atol == 0 and not _all_floats(self.value)):
                return False
            return _close(unpack(text), self.value, atol or 1e-6)
        except (MalformedValue, RecursionError):
            return False


def is_root(coefficients: Sequence[float], text: str, atol: float) -> bool:
    """Whether the value is a root of the polynomial, within atol."""
    try:
        value = unpack(text, ROOM)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        value = float(value)  # powers of a long integer would take forever
        return bool(abs(sum(coefficient * value**power for power, coefficient in enumerate(coefficients))) <= atol)
    except (MalformedValue, OverflowError):
        return False


def _all_floats(value: Any) -> bool:
    items = list(value.values()) if isinstance(value, dict) else value
    return isinstance(items, float) or (isinstance(items, list | tuple) and all(isinstance(i, float) for i in items))


def _close(value: Any, expected: Any, atol: float) -> bool:
    """Equal within atol + 1e-7 * |expected|, number by number; what EvalPlus asks of numpy. Sequences have the same
    length, dicts the same keys."""
    if isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            return False
        return all(_close(one, other, atol) for one, other in zip(value, expected, strict=True))
    if isinstance(expected, dict):
        if not isinstance(value, dict) or value.keys() != expected.keys():
            return False
        return all(_close(value[key], expected[key], atol) for key in expected)
    if not isinstance(expected, int | float) or not isinstance(value, int | float):
        return bool(value == expected)
    try:
        if math.isnan(expected):
            return math.isnan(value)
        return value == expected or (math.isfinite(expected) and abs(value - expected) <= atol + 1e-7 * abs(expected))
    except OverflowError:  # an integer beyond the floats
        return False


def is_plain(value: Any) -> bool:
    """Whether a value came back whole, so that it can be handed on."""
    if isinstance(value, dict):
        return all(is_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | complex | str | bytes)


class _Short(reprlib.Repr):
    """Texts of values for messages, bounded in length, depth and time: the digits of a long integer take quadratic
    time."""

    def repr_int(self, x: int, level: int) -> str:
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 200 else repr(x)


def short(text: str) -> str:
    """A little of the value, for messages."""
    try:
        value = unpack(text, LONGEST_SHOWN)
    except MalformedValue as error:
        return f"<{error}>"
    shown = "<a long value>" if isinstance(value, Digest) else _Short().repr(value)
    return shown if len(shown) <= 120 else shown[:117] + "..."
