"""The checkers that DMOJ's judge has built in, as rules of comparison: OJBench's problems name them.

Written from what they accept (judge-server at commit f098cd3, `dmoj/checkers/`), and tested against a table of it.
White space is that of C, lines end at line feeds and carriage returns. A checker that gives a share of the points
counts as passed where all points are given, except for `linematches`, which passes with any, and is not here.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator

Rule = Callable[[bytes, bytes, float], bool]
"""(output, expected output, tolerance) -> whether it is right."""

_BREAK, _LINE, _SPACE, _TOKEN = (re.compile(part) for part in (rb"[\r\n]", rb"[^\r\n]+", rb"\s", rb"\S+"))
_GAP = re.compile(rb"(\s*)(\S+)")


def _standard(got: bytes, expected: bytes, _: float) -> bool:
    """The same tokens in the same lines, but for empty lines and the white space within one."""
    return all(one == other for one, other in itertools.zip_longest(_tokens(got), _tokens(expected)))


def _tokens(text: bytes) -> Iterator[tuple[bool, bytes]]:
    """Each token, and whether a line ended between it and the one before."""
    return ((_BREAK.search(found[1]) is not None, found[2]) for found in _GAP.finditer(text.strip()))


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines that are not empty. A line of blanks is none of these, and counts."""
    return (found[0] for found in _LINE.finditer(text))


def _all(got: Iterator[bytes], expected: Iterator[bytes], equal: Callable[[bytes, bytes], bool]) -> bool:
    """Whether there are as many, and each pair is equal."""
    pairs = itertools.zip_longest(got, expected)
    return all(one is not None and other is not None and equal(one, other) for one, other in pairs)


def _floats(near: Callable[[float, float, float], bool]) -> Rule:
    """The same lines of as many tokens, in which numbers are near each other, and all else is equal."""

    def rule(got: bytes, expected: bytes, tolerance: float) -> bool:
        def same_line(one: bytes, other: bytes) -> bool:
            tokens = one.split(), other.split()
            return len(tokens[0]) == len(tokens[1]) and all(
                _same_number(*pair, tolerance, near) for pair in zip(*tokens, strict=True)
            )

        return _all(_lines(got), _lines(expected), same_line)

    return rule


def _same_number(got: bytes, expected: bytes, tolerance: float, near: Callable[[float, float, float], bool]) -> bool:
    try:
        wanted = float(expected)
    except ValueError:
        return got == expected
    try:
        return near(float(got), wanted, tolerance)
    except (ValueError, ZeroDivisionError):
        return False


def _absolute(got: float, expected: float, tolerance: float) -> bool:
    return abs(got - expected) <= tolerance  # never so for what is no number


def _relative(got: float, expected: float, tolerance: float) -> bool:
    ends = expected * (1 - tolerance), expected * (1 + tolerance)
    return min(ends) <= got <= max(ends)


def _either(got: float, expected: float, tolerance: float) -> bool:
    return _absolute(got, expected, tolerance) or (
        abs(expected) >= tolerance and abs(1.0 - got / expected) <= tolerance
    )


def _rstripped(got: bytes, expected: bytes, _: float) -> bool:
    """The same lines, but for white space at their ends."""
    if _number(_BREAK, got) != _number(_BREAK, expected):
        return False
    return _all(iter(_BREAK.split(got)), iter(_BREAK.split(expected)), _same_rstripped)


def _rstripped_filled(got: bytes, expected: bytes, _: float) -> bool:
    """The same, without empty lines."""
    return _all(_lines(got), _lines(expected), _same_rstripped)


def _same_rstripped(one: bytes, other: bytes) -> bool:
    return one.rstrip() == other.rstrip()


def _linecount(got: bytes, expected: bytes, _: float) -> bool:
    """The same lines without empty ones, but for white space around them."""
    return _all(_lines(got), _lines(expected), lambda one, other: one.strip() == other.strip())


def _number(part: re.Pattern[bytes], text: bytes) -> int:
    """How many there are: counted first, so that an output without end takes no memory."""
    return sum(1 for _ in part.finditer(text))


def _sorted(got: bytes, expected: bytes, _: float) -> bool:
    """The same lines in any order, each with the same tokens in their order."""
    if _number(_LINE, got) != _number(_LINE, expected):
        return False
    one, other = (Counter(tuple(line.split()) for line in _lines(text)) for text in (got, expected))
    return one == other


def _unordered(got: bytes, expected: bytes, _: float) -> bool:
    """The same tokens in any order."""
    return _number(_TOKEN, got) == _number(_TOKEN, expected) and Counter(got.split()) == Counter(expected.split())


def _easy(got: bytes, expected: bytes, _: float) -> bool:
    """The same characters in any order, white space and capitals apart."""
    one, other = (Counter(_SPACE.sub(b"", text).lower()) for text in (got, expected))
    return one == other


RULES: dict[str, Rule] = {
    "dmoj_standard": _standard,
    "dmoj_identical": lambda got, expected, _: got == expected,
    "dmoj_floats": _floats(_either),
    "dmoj_floatsabs": _floats(_absolute),
    "dmoj_floatsrel": _floats(_relative),
    "dmoj_rstripped": _rstripped,
    "dmoj_rstripped_filled": _rstripped_filled,
    "dmoj_linecount": _linecount,
    "dmoj_sorted": _sorted,
    "dmoj_unordered": _unordered,
    "dmoj_easy": _easy,
}
TOLERANT = tuple(name for name in RULES if name.startswith("dmoj_floats"))
"""Those that need a tolerance."""
