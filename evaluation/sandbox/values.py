"""Values as text: how results come back from the sandbox. The child writes (see `child.py`), the parent reads, here.

JSON with a mark: null, true and false are themselves; "s..." a string, "i..." an integer in hexadecimal (decimal text of long integers
takes quadratic time), "f..." a float in hexadecimal (exact, with inf and nan), ["l", ...] a list, ["t", ...] a tuple, ["S", ...] a
set, ["F", ...] a frozen set, ["d", k, v, k, v, ...] a dict, ["c", real, imag] a complex number, ["b", "hex"] bytes, ["h", digest] a
value whose text is long, ["?"] anything else.

Instances of subclasses come as their base class, without their own methods: no `__eq__` of a program's is ever called here.

The text may be a hostile program's own. So it is read only where it is short enough for what is asked of it, equality is decided on text
(`canonical`) rather than on sets and dicts, and a set whose elements all hash alike, which would take quadratic time, is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NoReturn

LONGEST = 2**22
"""Characters of a text that is read at all. The child sends digests of values whose canonical text has more than 2**18 characters, and
another text is at most 16 times as long as that one."""
ALIKE = 256
"""Elements of a set or keys of a dict that may have the same hash. Of honest ones few have: 2**n and 2**(n + 61), for example."""
EXACT = 2**53
"""Below it, every whole float is one integer and every integer one float."""


class MalformedValue(Exception):
    """Text that is not a value, or one too costly to read; only a program that wrote into the result channel itself sends such."""


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


def read(text: str, longest: int = LONGEST) -> Any:
    """The parsed JSON of a value's text of at most so many characters. Raises `MalformedValue`."""
    if len(text) > longest:
        raise MalformedValue(f"a result of {len(text)} characters")
    try:
        return json.loads(text, object_pairs_hook=_refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedValue(f"unreadable result: {type(error).__name__}") from error


def _refuse(_: object) -> NoReturn:
    raise ValueError("no value is an object")


def write(value: Any) -> str:
    """The text of a value of ours. Raises `TypeError` where `encode` does."""
    return json.dumps(encode(value))


def unpack(text: str, longest: int = LONGEST) -> Any:
    """The value of a text, whoever wrote it. Raises `MalformedValue` and nothing else."""
    try:
        return decode(read(text, longest))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise MalformedValue(f"unreadable result: {type(error).__name__}") from error


def canonical(text: str) -> str:
    """One text for all values that Python holds equal (1, 1.0 and True; sets in any order), and for nan. Raises `MalformedValue`.

    Nothing is put into a set or dict here, and nothing of another type, which is equal to nothing, has a canonical text.
    """
    try:
        return _canonical(read(text))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise MalformedValue(f"unreadable result: {type(error).__name__}") from error


def _canonical(tree: Any) -> str:
    if not isinstance(tree, list):
        value = decode(tree)
        return "null" if value is None else encode_basestring_ascii(tree) if isinstance(value, str) else _number(value)
    mark, parts = tree[0], tree[1:]
    if mark == "c":
        value = decode(tree)
        return _number(value) if value.imag else _number(value.real)
    if mark == "b" or mark == "h":
        return f'["{mark}", {encode_basestring_ascii(parts[0])}]'
    if mark not in ("l", "t", "S", "F", "d"):
        raise MalformedValue("a value of another type")
    texts = []
    for part in parts:  # no comprehension: that would be a second frame for each level of nesting
        texts.append(_canonical(part))
    if mark == "d":
        texts = [f"{key}: {value}" for key, value in zip(texts[::2], texts[1::2], strict=True)]
    if mark in ("S", "F", "d"):
        texts.sort()
    return f"{'S' if mark == 'F' else mark}[{', '.join(texts)}]"


def _number(value: complex) -> str:
    """One text for equal numbers, and a short one: large whole floats as floats, though they are integers as well."""
    if isinstance(value, complex):
        return f"{value.real.hex()} {value.imag.hex()}j"
    if -EXACT < value < EXACT:
        return f"{value:x}" if isinstance(value, int) else f"{int(value):x}" if value.is_integer() else value.hex()
    try:
        whole = float(value)
    except OverflowError:
        return f"{value:x}"
    return whole.hex() if whole == value or not isinstance(value, int) else f"{value:x}"


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
        return _decode_parts(value[0], value[1:])
    raise MalformedValue("no value")


def _decode_parts(mark: str, parts: list[Any]) -> Any:
    if mark == "c":
        return complex(float.fromhex(parts[0]), float.fromhex(parts[1]))
    if mark == "b":
        return bytes.fromhex(parts[0])
    if mark == "h":
        return Digest(str(parts[0]))
    if mark == "?":
        return UNSENDABLE
    values = list(map(decode, parts))
    match mark:
        case "l":
            return values
        case "t":
            return tuple(values)
        case "S":
            return set(spread(values))
        case "F":
            return frozenset(spread(values))
        case "d":
            return dict(zip(spread(values[::2]), values[1::2], strict=True))
    raise MalformedValue("no value")


def spread(keys: Sequence[Hashable]) -> Sequence[Hashable]:
    """The same, to be put into a set or dict. Raises `MalformedValue` where that could take quadratic time, `TypeError` for a list."""
    hashes = sorted(map(hash, keys))
    if any(one == other for one, other in zip(hashes, hashes[ALIKE:], strict=False)):
        raise MalformedValue("the keys all hash alike")
    return keys
