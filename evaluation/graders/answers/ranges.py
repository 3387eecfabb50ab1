"""Maths: dates, and ranges of two numbers, whose signs are no arithmetic: 2024-05-03, 5/1/2024, 1999-2003."""

import re

from evaluation.graders.answers.nodes import Leaf, Node, Range, Words
from evaluation.graders.answers.quantity import split_unit
from evaluation.graders.notation import WRAPPED, squeezed, value

_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_DATE = re.compile(
    r"(?P<first>[12]\d{3})(?P<sign>[-/.])(?P<month>\d{1,2})(?P=sign)(?P<day>\d{1,2})"
    r"|(?P<one>\d{1,2})(?P<mark>[-/.])(?P<other>\d{1,2})(?P=mark)(?P<last>[12]\d{3})"
)
_MARK = r"\\%|\^\s*\\circ(?![A-Za-z])"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})\s*(?P<mark>{_MARK})?\s*(?:-{{1,3}}|—)\s*(?P<high>\d.*)", re.DOTALL)


def date_or_range(text: str) -> Words | Range | None:
    """What a text is, where it is nothing but a date or two numbers with a dash between them, and a unit.

    A date is words: which part is the day is not known, so that parts are compared in their order.
    """
    written = text
    text = re.sub(r"\A\(([^()]*)\)\Z", r"\1", WRAPPED.sub(r"\1", text).strip()).strip()
    if (date := _DATE.fullmatch(text)) is not None:
        parts = [part for name in ("first", "month", "day", "one", "other", "last") if (part := date[name])]
        if all(0 < int(part) < 32 for part in parts if len(part) < 3):
            return Words("/".join(str(int(part)) for part in parts), text)
    if (pair := _RANGE.fullmatch(text)) is None:
        return None
    high, unit = split_unit(pair["high"], plain=False)
    if high.endswith("\\%"):
        high, unit = high.removesuffix("\\%").strip(), "\\%"
    if re.fullmatch(_NUMBER, high) is None or (pair["mark"] and squeezed(pair["mark"]) != squeezed(unit)):
        return None
    return Range(pair["low"], high, unit, written)


def as_difference(node: Node) -> Node:
    """A range as the difference that it may be as well: 7-2, which falls, but neither 12-15 nor 2024-05."""
    if not isinstance(node, Range):
        return node
    low, high = value(node.low), value(node.high)
    is_padded = any(re.match(r"0\d", number) for number in (node.low, node.high))
    return node if low is None or high is None or low < high or is_padded else Leaf(node.text)


def without_ranges(items: tuple[Node, ...]) -> tuple[Node, ...]:
    """The items of a tuple or of a matrix, where a dash is a minus."""
    return tuple(Leaf(item.text) if isinstance(item, Range) else item for item in items)
