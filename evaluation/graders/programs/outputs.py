"""Whether an output is the expected one. Both are bytes, for a hostile program may have written any.

Nothing here takes much longer than reading both, or memory beyond them: tokens are compared one by one.
"""

import itertools
import math
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from evaluation.graders.programs.dmoj import RULES, TOLERANT

Comparison = Literal[
    "tokens", "exact", "lines", "floats",
    "dmoj_standard", "dmoj_identical", "dmoj_floats", "dmoj_floatsabs", "dmoj_floatsrel", "dmoj_rstripped",
    "dmoj_rstripped_filled", "dmoj_linecount", "dmoj_sorted", "dmoj_unordered", "dmoj_easy",
]  # fmt: skip
"""`tokens`: the same tokens, whatever white space is between them. `exact`: byte by byte, but for carriage returns
before line ends and one line end at the end. `lines`: the same lines, each without white space at its ends, or with
equal decimal numbers (LiveCodeBench's rule). `floats`: tokens, and numbers within a tolerance, absolute or relative.
The others are checkers of DMOJ's (`evaluation.graders.programs.dmoj`)."""
COMPARISONS: tuple[Comparison, ...] = get_args(Comparison)
WITH_TOLERANCE = ("floats", *TOLERANT)
"""Those that need a tolerance, which no other has."""
_TOKEN, _LINE = re.compile(rb"\S+"), re.compile(rb"[^\n]*\n|[^\n]+\Z")
SHOWN = 60  # characters of an output in a message
LONGEST_LINE = 10_000  # bytes of a line that are looked at for a message
SMALL = 2**20  # bytes of outputs whose tokens are compared all at once, which is faster
LONGEST_NUMBER = 400  # characters of a token that is read as a number


def same(got: bytes, expected: bytes, comparison: Comparison, tolerance: float = 0.0) -> bool:
    """Whether the output is right by the rule; `tolerance` is that of floats."""
    if comparison in RULES:
        return RULES[comparison](got, expected, tolerance)
    if got == expected:
        return True
    if comparison == "exact":
        return _ended(got) == _ended(expected)
    if comparison == "lines":
        return _all(_LINE, got.strip(), expected.strip(), _same_line)
    if comparison == "floats":
        return _all(_TOKEN, got, expected, lambda one, other: one == other or _near(one, other, tolerance))
    if len(got) + len(expected) <= SMALL:
        return got.split() == expected.split()
    return _all(_TOKEN, got, expected, bytes.__eq__)


def _ended(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").removesuffix(b"\n")


def _all(part: re.Pattern[bytes], got: bytes, expected: bytes, equal: Callable[[bytes, bytes], bool]) -> bool:
    """Whether both have as many parts, and each pair is equal."""
    pairs = itertools.zip_longest(part.finditer(got), part.finditer(expected))
    return all(one is not None and other is not None and equal(one[0], other[0]) for one, other in pairs)


def _same_line(got: bytes, expected: bytes) -> bool:
    got, expected = got.strip(), expected.strip()
    if got == expected:
        return True
    if len(got) > 4 * len(expected) + LONGEST_NUMBER:
        return False
    numbers = got.split(), expected.split()
    try:
        return len(numbers[0]) == len(numbers[1]) and all(
            Decimal(one.decode()) == Decimal(other.decode()) for one, other in zip(*numbers, strict=True)
        )
    except (InvalidOperation, ValueError):
        return False


def _near(got: bytes, expected: bytes, tolerance: float) -> bool:
    if max(len(got), len(expected)) > LONGEST_NUMBER or b"_" in got:  # float() takes 1_0 for ten
        return False
    try:
        one, other = float(got), float(expected)
    except ValueError:
        return False
    if not (math.isfinite(one) and math.isfinite(other)):
        return one == other
    return abs(one - other) <= tolerance * max(1.0, abs(other))


def first_difference(got: bytes, expected: bytes) -> str:
    """A cut of both at the first line in which they differ, for messages."""
    pairs = itertools.zip_longest(_LINE.finditer(got.strip()), _LINE.finditer(expected.strip()))
    for number, (one, other) in enumerate(pairs, start=1):
        found, wanted = (None if line is None else b" ".join(line[0][:LONGEST_LINE].split()) for line in (one, other))
        if found != wanted:
            shown = ["nothing" if text is None else cut(text) for text in (found, wanted)]
            return f"{f'line {number}: ' if number > 1 else ''}{shown[0]} instead of {shown[1]}"
    return f"{cut(got)} instead of {cut(expected)}"


def cut(text: bytes) -> str:
    """The beginning of an output, in quotation marks, without characters that a terminal takes for commands."""
    shown = text[: 4 * SHOWN].decode(errors="replace")
    shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in shown).replace("\n", "\\n")
    return f"'{shown}'" if len(shown) <= SHOWN and len(text) <= 4 * SHOWN else f"'{shown[: SHOWN - 3]}...'"
