"""Values as text: how results come back from the sandbox. The child writes (see `child.py`), the parent reads, here.

JSON with a mark: null, true and false are themselves; "s..." a string, "i..." an integer in hexadecimal (decimal text of long integers
takes quadratic time), "f..." a float in hexadecimal (exact, with inf and nan), ["l", ...] a list, ["t", ...] a tuple, ["S", ...] a
set, ["F", ...] a frozen set, ["d", k, v, k, v, ...] a dict, ["c", real, imag] a complex number, ["b", "hex"] bytes, ["h", digest] a
value whose text is long, ["?"] anything else.

Instances of subclasses come as their base class, without their own methods: no `__eq__` of a program's is ever called here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


class MalformedValue(Exception):
    """Text that is not a value; only a program that wrote into the result channel itself sends such."""


class _Unsendable:
    """Equal to nothing, not even to itself."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<a value of another type>"


UNSENDABLE = _Unsendable()


@dataclasses.dataclass(frozen=True)
class Digest:
    """Stands for a value whose text is long; equal to another digest where the values are equal, numbers exactly."""

    hexadecimal: str


def encode(value: Any) -> Any:
    """The JSON value that `decode` turns back into `value`: for inputs that a record must hold. Raises `TypeError` for another type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "s" + value
    if isinstance(value, int):
        return f"i{value:x}"
    if isinstance(value, float):
        return "f" + value.hex()
    if isinstance(value, complex):
        return ["c", value.real.hex(), value.imag.hex()]
    if isinstance(value, bytes):
        return ["b", value.hex()]
    if isinstance(value, dict):
        return ["d", *(encode(part) for pair in value.items() for part in pair)]
    if isinstance(value, set | frozenset):  # in an order that is the same in every process
        return ["S" if isinstance(value, set) else "F", *sorted((encode(item) for item in value), key=repr)]
    if isinstance(value, list | tuple):
        return ["l" if isinstance(value, list) else "t", *map(encode, value)]
    raise TypeError(f"{type(value).__name__} is none of the types that records hold")


_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {"l": list, "t": tuple, "S": set, "F": frozenset}


def decode(value: Any) -> Any:
    """The value of one parsed JSON text. Raises `MalformedValue`, or `ValueError` and `TypeError` from a malformed part."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value:
        mark, rest = value[0], value[1:]
        if mark == "s":
            return rest
        if mark == "i":
            return int(rest, 16)
        if mark == "f":
            return float.fromhex(rest)
    if isinstance(value, list) and value and isinstance(value[0], str):
        mark, parts = value[0], value[1:]
        if mark in _CONTAINERS:
            return _CONTAINERS[mark]([decode(part) for part in parts])
        if mark == "d":
            decoded = [decode(part) for part in parts]
            return dict(zip(decoded[::2], decoded[1::2], strict=True))
        if mark == "c":
            return complex(float.fromhex(parts[0]), float.fromhex(parts[1]))
        if mark == "b":
            return bytes.fromhex(parts[0])
        if mark == "h":
            return Digest(str(parts[0]))
        if mark == "?":
            return UNSENDABLE
    raise MalformedValue(repr(value)[:100])
