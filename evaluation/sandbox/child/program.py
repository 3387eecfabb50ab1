"""Running the program, and its values as text (see `evaluation.sandbox.values`, which reads them)."""

from __future__ import annotations

import marshal
import sys

from evaluation.sandbox.child.cpython_internals import blake2b, encode_basestring_ascii

TYPE_CHECKING = False  # the name that type checkers know; typing itself takes long to import
if TYPE_CHECKING:
    from typing import Any

OTHER = '["?"]'  # the text of a value of another type
LONG_TEXT = 2**18  # characters
EXACT = 2**53  # below it, every whole float is one integer and every integer one float


def run_program(order: dict[str, Any]) -> str:
    """Run the sections, then the expressions or calls. The lines of the result: its header, and the values."""
    module = sys.modules["program"] = type(sys)("program")  # dataclasses and pickle look a class's module up
    values, status, detail = [], "done", ""
    try:
        for number, source in enumerate(order["sections"]):
            exec(compile(source, f"<section {number}>", "exec", dont_inherit=True), module.__dict__)
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
    """The text of one value, or a digest where the text is long: HumanEval+ has results of hundreds of megabytes."""
    text = text_of(value)
    if len(text) <= LONG_TEXT:
        return text
    # What decides is the length of the canonical text, so that of two equal values either both are digests or none.
    same_for_equals = text_of(value, canonical=True)
    if len(same_for_equals) <= LONG_TEXT:
        return text
    if OTHER in same_for_equals:  # a digest must not make two values equal that are equal to nothing
        return OTHER
    return f'["h", "{blake2b(same_for_equals.encode()).hexdigest()}"]'


def text_of(value: Any, canonical: bool = False) -> str:
    """The text of one value. No method of the value's own class is called, only those of its base.

    `canonical`: one text for equal values, for digests. Numbers as integers where they are whole and small, as floats
    where they are large and a float is equal; sets and dicts in the order of their items' texts.
    """
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool and not canonical:
        return "true" if value else "false"
    if issubclass(kind, int):
        value = int.__index__(value)
        if canonical and not -EXACT < value < EXACT and is_float(value):
            return f'"f{float(value).hex()}"'
        return f'"i{value:x}"'
    if issubclass(kind, float):
        if canonical and -EXACT < value < EXACT and float.is_integer(value):
            return f'"i{float.__int__(value):x}"'
        return f'"f{float.hex(value)}"'
    if issubclass(kind, complex):
        value = complex.__pos__(value)
        if canonical and not value.imag:
            return text_of(value.real, True)
        return f'["c", "{value.real.hex()}", "{value.imag.hex()}"]'
    if issubclass(kind, str):
        return str(encode_basestring_ascii("s" + str.__str__(value)))
    for mark, base in (("l", list), ("t", tuple), ("S", set), ("F", frozenset)):
        if issubclass(kind, base):
            items = [text_of(item, canonical) for item in base.__iter__(value)]
            if canonical and mark in "SF":
                mark = "S"
                items.sort()
            return f'["{mark}"' + "".join([", " + item for item in items]) + "]"
    if issubclass(kind, dict):
        pairs = [f", {text_of(key, canonical)}, {text_of(item, canonical)}" for key, item in dict.items(value)]
        return '["d"' + "".join(sorted(pairs) if canonical else pairs) + "]"
    if issubclass(kind, bytes):
        return f'["b", "{bytes.hex(value)}"]'
    return OTHER


def is_float(value: int) -> bool:
    """Whether there is an equal float: it has 1024 bits, and all ones within 53 of them."""
    return value.bit_length() <= 1024 and value.bit_length() - (value & -value).bit_length() < 53
