"""Running the program, and its values as text (see `evaluation.sandbox.values`, which reads them)."""

from __future__ import annotations

import marshal
import sys
from hashlib import blake2b
from itertools import chain, islice
from json.encoder import encode_basestring_ascii

TYPE_CHECKING = False  # the name that type checkers know
if TYPE_CHECKING:
    from typing import Any

OTHER = '["?"]'  # the text of a value of another type
LONG, CHARACTERS = 2**14, 16  # parts of a value that is still sent as text; characters of a string that count as a part
PIECE = 2**12  # parts of a sequence
EXACT, FLOAT_BITS = 2**53, 1024  # below EXACT, every whole float is one integer and every integer one float
NAN = float("nan")
SIZED: tuple[Any, ...] = (str, bytes, int, list, tuple, set, frozenset, dict)


def run_program(order: dict[str, Any]) -> str:
    """Run the sections, then the expressions or calls. The lines of the result: its header, and the values."""
    module = sys.modules["program"] = type(sys)("program")  # dataclasses and pickle look a class's module up
    values, status, detail = [], "done", ""
    try:
        for number, source in enumerate(order["sections"]):
            if isinstance(source, str):
                source = compile(source, f"<section {number}>", "exec", dont_inherit=True)
            exec(source, module.__dict__)
        for source in order["expressions"]:
            values.append(pack(eval(compile(source, "<test>", "eval", dont_inherit=True), module.__dict__)))
        for arguments in marshal.loads(order["inputs"]):
            values.append(pack(module.__dict__[order["entry_point"]](*arguments)))
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures like any other here
        status, detail = "raised", describe(error)
    header = f"[{encode_basestring_ascii(status)}, {encode_basestring_ascii(detail)}, {len(values)}]"
    return "\n".join([header, *values])


def describe(error: BaseException) -> str:
    """Type and message of an exception, also of one whose message cannot be made."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # noqa: BLE001 - its message is the program's own code
        return type(error).__name__


def pack(value: Any) -> str:
    """The text of one value, or a digest of one that is long: MBPP+ has a result of 128 million strings."""
    if not is_long(value):
        return text_of(value)
    try:
        return f'["h", "{digest(value)}"]'
    except TypeError:  # a digest must not make two values equal that are equal to nothing
        return OTHER


def is_long(value: Any) -> bool:
    """Whether a value has more than LONG parts. Equal values are alike in this; no more than LONG parts are looked
    at."""
    parts, number = [value], 0
    while parts and number <= LONG:
        part = parts.pop()
        kind, number = type(part), number + 1
        base = next((base for base in SIZED if issubclass(kind, base)), None)
        if base is int:
            number += max(0, int.bit_length(part) - FLOAT_BITS) // (4 * CHARACTERS)
        elif base in (str, bytes):
            number += base.__len__(part) // CHARACTERS
        elif base is not None:
            number += base.__len__(part)
            if number <= LONG:
                parts += base.__iter__(part)
                parts += dict.values(part) if base is dict else ()
    return number > LONG


def digest(value: Any) -> str:
    """A hash that equal values have in common. Long sequences are read piece by piece, and what needs no change is
    written as it is: both keep time and memory near what making the value took. Raises `TypeError` where a part is of
    another type."""
    state = blake2b()
    base = next((base for base in (list, tuple) if issubclass(type(value), base)), None)
    parts = iter([value]) if base is None else base.__iter__(value)
    state.update(str(base).encode())
    while piece := list(islice(parts, PIECE)):
        state.update(marshal.dumps(piece if is_plain(piece) else [plain(part) for part in piece], 2))
    return str(state.hexdigest())


def is_plain(values: list[Any]) -> bool:
    """Whether `plain` would change none of the values; False also where that would take long to say."""
    kinds = set(map(type, values))
    if kinds in ({list}, {tuple}):
        return is_plain(list(chain.from_iterable(values)))
    if kinds == {int}:
        return bool(min(values) > -EXACT and max(values) < EXACT)
    return kinds <= {str, bytes, type(None)}


def plain(value: Any) -> Any:
    """A value that `marshal` writes in one way for all that are equal. Numbers are integers where they are whole and
    small, floats where they are large and a float is equal; sets and dicts are sorted by what is written. No method of
    the value's own class is called, only those of its base. Raises `TypeError` for a value of another type."""
    kind = type(value)
    if value is None or kind is str:
        return value
    if issubclass(kind, int):
        value = int.__index__(value)
        return value if -EXACT < value < EXACT or not is_float(value) else float(value)
    if issubclass(kind, float):
        value = float.__pos__(value)
        if value != value:
            return NAN
        return int(value) if -EXACT < value < EXACT and value.is_integer() else value
    if issubclass(kind, complex):
        value = complex.__pos__(value)
        return (..., "c", plain(value.real), plain(value.imag)) if value.imag else plain(value.real)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, bytes):
        return bytes.__getitem__(value, slice(None))
    if issubclass(kind, list):
        return [plain(part) for part in list.__iter__(value)]
    if issubclass(kind, tuple):
        return tuple([plain(part) for part in tuple.__iter__(value)])
    for base in (set, frozenset):
        if issubclass(kind, base):
            return (..., "S", *sorted([marshal.dumps(plain(part), 2) for part in base.__iter__(value)]))
    if issubclass(kind, dict):
        pairs = [marshal.dumps((plain(key), plain(part)), 2) for key, part in dict.items(value)]
        return (..., "d", *sorted(pairs))
    if (scalar := as_python(value)) is not None:
        return plain(scalar)
    raise TypeError("a value of another type")


def text_of(value: Any) -> str:
    """The text of one value. No method of the value's own class is called, only those of its base."""
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if issubclass(kind, int):
        return f'"i{int.__index__(value):x}"'
    if issubclass(kind, float):
        return f'"f{float.hex(value)}"'
    if issubclass(kind, complex):
        value = complex.__pos__(value)
        return f'["c", "{value.real.hex()}", "{value.imag.hex()}"]'
    if issubclass(kind, str):
        return str(encode_basestring_ascii("s" + str.__str__(value)))
    for mark, base in (("l", list), ("t", tuple), ("S", set), ("F", frozenset)):
        if issubclass(kind, base):
            return f'["{mark}"' + "".join([f", {text_of(item)}" for item in base.__iter__(value)]) + "]"
    if issubclass(kind, dict):
        return '["d"' + "".join([f", {text_of(key)}, {text_of(item)}" for key, item in dict.items(value)]) + "]"
    if issubclass(kind, bytes):
        return f'["b", "{bytes.hex(value)}"]'
    scalar = as_python(value)
    return OTHER if scalar is None else text_of(scalar)


def as_python(value: Any) -> Any:
    """The bool or integer that a scalar of numpy's stands for, to which it is equal; None for any other value. Its
    floats, complex numbers and strings are Python's as well."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.bool | numpy.integer | numpy.floating):
        return None
    scalar = numpy.generic.item(value)
    return scalar if type(scalar) in (bool, int, float) else None


def is_float(value: int) -> bool:
    """Whether there is an equal float: it has FLOAT_BITS at most, and all ones within 53 of them."""
    return value.bit_length() <= FLOAT_BITS and value.bit_length() - (value & -value).bit_length() < 53
