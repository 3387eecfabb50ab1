"""Maths: the parts of a tree that an answer is read as, and how its text is taken apart at commas and other signs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Leaf:
    """One expression."""

    text: str


@dataclass(frozen=True)
class Words:
    """An answer in words, as letters and digits in lower case; `written` has the capitals."""

    text: str
    written: str = field(default="", compare=False)


@dataclass(frozen=True)
class Dots:
    """What a list leaves out."""


@dataclass(frozen=True)
class Equation:
    """left = right. `name` is the left side where that only names what the right side is: x, f(x), \\angle A."""

    left: str
    right: "Node"
    text: str
    name: str | None


@dataclass(frozen=True)
class Comparison:
    """Sides with <, \\le or \\ne between them, the smaller one first."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """An interval; a point where both ends are the same."""

    left: str
    right: str
    closed_left: bool
    closed_right: bool


@dataclass(frozen=True)
class Region:
    """A union of intervals, or all real numbers but some (`holes`); `variable` where the answer names it."""

    pieces: tuple[Piece, ...] = ()
    holes: tuple[str, ...] | None = None
    variable: str | None = None


@dataclass(frozen=True)
class Group:
    """Several things: a list (1, 2), a set {1, 2}, a tuple or interval with its brackets, the rows of a matrix."""

    kind: Literal["list", "set", "tuple", "matrix", "row", "cases"]
    items: tuple["Node", ...]
    brackets: str = ""
    joined: str = ","
    name: str | None = None  # what all items are values of: x = 2 or 3


@dataclass(frozen=True)
class Clock:
    """A time of day: seconds as they are written, 24:00 being 86400 of them, and a or p where it says which half."""

    seconds: int
    half: str

    def says_half(self) -> bool:
        """Whether it can be told which half of the day it is in; the hour after midnight says so by itself."""
        return bool(self.half) or self.seconds % 86400 < 3600


@dataclass(frozen=True)
class Ratio:
    """2:3, and any number of parts."""

    parts: tuple[str, ...]


@dataclass(frozen=True)
class Residue:
    """Values modulo a number."""

    value: "Node"
    modulus: str


@dataclass(frozen=True)
class Range:
    """Two numbers with a dash between them, their unit, and the whole as it is written: 12-15 years."""

    low: str
    high: str
    unit: str
    text: str


Node = Leaf | Words | Dots | Equation | Comparison | Region | Group | Clock | Ratio | Residue | Range

_OPEN = {"(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil"}
_CLOSE = {")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil"}
_JOIN = (
    r"\\text\s*\{\s*,?\s*(?P<word>and|or|und|oder|et|ou|或|和)\s*,?\s*\}|"
    r"(?<![A-Za-z\\])(?P<plain>and|or)(?![A-Za-z])|\\lor\b|\\land\b"
)
_TOKEN = re.compile(rf"{_JOIN}|\\(?:[A-Za-z]+|.)|[^\\]", re.DOTALL)


def closing(text: str) -> int:
    """Where the bracket that opens at the start is closed; -1 where it is not."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth == 0:
            return token.start()
    return -1


def split(text: str, separators: set[str]) -> list[tuple[str, str]]:
    """The parts of a text between separators outside all brackets, each with the separator before it."""
    parts: list[tuple[str, str]] = []
    depth, start, joint = 0, 0, ""
    for token in _TOKEN.finditer(text):
        part = token[0]
        depth = max(0, depth + (part in _OPEN) - (part in _CLOSE) + (part == "\\begin") - (part == "\\end"))
        name = token["word"] or token["plain"] or part
        if depth == 0 and name in separators:
            parts.append((joint, text[start : token.start()].strip()))
            start, joint = token.end(), name
    return [*parts, (joint, text[start:].strip())]


def both_signs(text: str) -> list[str]:
    """A text with \\pm as the texts that it stands for; several \\pm are independent, \\mp goes with its \\pm."""
    signs = re.findall(r"\\(?:pm|mp)(?![A-Za-z])", text)
    if not signs:
        return [text]
    if "\\mp" in signs or len(signs) == 1 or len(signs) > 4:
        plus = text.replace("\\pm", "+").replace("\\mp", "-")
        minus = text.replace("\\pm", "-").replace("\\mp", "+")
        return [plus, minus]
    halves = [text.replace("\\pm", sign, 1) for sign in "+-"]
    return [whole for half in halves for whole in both_signs(half)]


def has_region(node: Node) -> bool:
    """Whether a node is a region, or a group with one."""
    return isinstance(node, Region) or (isinstance(node, Group) and any(isinstance(i, Region) for i in node.items))


def without_repetitions(group: Group) -> Group:
    """A set with each item once."""
    return group if Dots() in group.items else replace(group, items=tuple(dict.fromkeys(group.items)))


def names(group: Group) -> set[str]:
    """What the items of a group are said to be values of."""
    found = {group.name, *(item.name for item in group.items if isinstance(item, Equation))}
    return {name for name in found if name is not None}


def by_name(group: Group) -> Sequence[Node]:
    """The items in order; equations like x = 1 in that of their names, without these."""
    equations = [item for item in group.items if isinstance(item, Equation) and item.name is not None]
    if group.kind != "list" or len(equations) != len(group.items):
        return group.items
    return [item.right for item in sorted(equations, key=lambda item: item.name or "")]
