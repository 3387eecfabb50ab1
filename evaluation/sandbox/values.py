"""Values as text: how results come back from the sandbox, where `child/program.py` writes them.

JSON with a mark: null, true and false are themselves; "s..." a string, "i..." an integer in hexadecimal (decimal text
of long integers takes quadratic time), "f..." a float in hexadecimal (exact, with inf and nan), ["l", ...] a list,
["t", ...] a tuple, ["S", ...] a set, ["F", ...] a frozen set, ["d", k, v, k, v, ...] a dict, ["c", real, imag] a
complex number, ["b", "hex"] bytes, ["h", digest] a value whose text is long, ["?"] anything else. Instances of
subclasses come as their base class, without their own methods: no `__eq__` of a program's is called here.

The text may be a hostile program's own. So it is read only where it is short enough for its purpose, equality is
decided on text (`canonical`), and a set whose elements all hash alike, which would take quadratic time, is refused.
"""

import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NoReturn

from evaluation.sandbox.child.program import OTHER, plain, text_of

LONGEST = 2**22
"""Characters of a text that is read at all; that of a value which the child sends whole has fewer (`program.LONG`)."""
ALIKE = 256
"""Elements of a set or keys of a dict that may have the same hash. Few honest ones do, such as 2**n and 2**(n + 61)."""


class MalformedValue(Exception):
    """Text that is no value, or too costly to read; only a program that wrote it into the result channel sends such."""


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


def write(value: Any) -> str:
    """The text of a value of ours. Raises `TypeError` where a part of it is of another type."""
    text = text_of(value)
    if OTHER in text:  # within a string, its quotes would be escaped
        raise TypeError("a part of the value is of none of the types that a text can hold")
    return text


def encode(value: Any) -> Any:
    """The JSON value that `decode` turns back into `value`, one in every process: for inputs that a record must hold.
    Raises `TypeError` where `write` does."""
    return _sorted(json.loads(write(value)))


def _sorted(tree: Any) -> Any:
    if not isinstance(tree, list):
        return tree
    parts = list(map(_sorted, tree[1:]))
    return [tree[0], *(sorted(parts, key=repr) if tree[0] in ("S", "F") else parts)]


def unpack(text: str, longest: int = LONGEST) -> Any:
    """The value of a text of at most so many characters, by any author. Raises `MalformedValue` and nothing else."""
    return _read(text, longest, decode)


def canonical(text: str) -> str:
    """One text for all values that Python holds equal (1, 1.0 and True; sets in any order), and for nan. No set or dict
    is built for it. Raises `MalformedValue`, also for a part of another type, which is equal to nothing."""
    return str(_read(text, LONGEST, _canonical))


def _read(text: str, longest: int, convert: Callable[[Any], Any]) -> Any:
    """What `convert` makes of the parsed JSON of a value's text. Raises `MalformedValue` and nothing else."""
    if len(text) > longest:
        raise MalformedValue(f"a result of {len(text)} characters")
    try:
        return convert(json.loads(text, object_pairs_hook=_refuse))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise MalformedValue(f"unreadable result: {type(error).__name__}") from error


def _refuse(_: object) -> NoReturn:
    raise ValueError("no value is an object")


def _canonical(tree: Any) -> str:
    if not isinstance(tree, list) or tree[0] not in ("l", "t", "S", "F", "d"):
        value = decode(tree)
        if value is UNSENDABLE:
            raise MalformedValue("a value of another type")
        return json.dumps(["h", value.hexadecimal]) if isinstance(value, Digest) else text_of(plain(value))
    mark, texts = tree[0], []
    for part in tree[1:]:  # no comprehension: that would be a second frame for each level of nesting
        texts.append(_canonical(part))
    if mark == "d":
        texts = [f"{key}: {value}" for key, value in zip(texts[::2], texts[1::2], strict=True)]
    if mark in ("S", "F", "d"):
        texts.sort()
    return f"{'S' if mark == 'F' else mark}[{', '.join(texts)}]"


_SCALARS: dict[str, Callable[[str], Any]] = {"s": str, "i": lambda text: int(text, 16), "f": float.fromhex}


def decode(value: Any) -> Any:
    """The value of one parsed JSON text. Raises `MalformedValue`, or `ValueError` and `TypeError` for a bad part."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value[:1] in _SCALARS:
        return _SCALARS[value[0]](value[1:])
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
    if mark in ("l", "t"):
        return values if mark == "l" else tuple(values)
    if mark in ("S", "F"):
        return (set if mark == "S" else frozenset)(spread(values))
    if mark == "d":
        return dict(zip(spread(values[::2]), values[1::2], strict=True))
    raise MalformedValue("no value")


def spread(keys: Sequence[Hashable]) -> Sequence[Hashable]:
    """The keys, of which a set or dict can be built. Raises `MalformedValue` where that could take quadratic time, for
    they hash alike, and `TypeError` where one cannot be hashed."""
    hashes = sorted(map(hash, keys))
    if any(one == other for one, other in zip(hashes, hashes[ALIKE:], strict=False)):
        raise MalformedValue("the keys all hash alike")
    return keys
