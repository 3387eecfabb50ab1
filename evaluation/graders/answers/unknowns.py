"""Maths: what the parser of expressions would drop or evaluate to nothing, as symbols of their own: derivatives of
unknown functions, primes, transposes."""

import hashlib
import re

from evaluation.graders.answers.nodes import split
from evaluation.graders.notation import squeezed

_INDEX = r"_\s*(?:\w|\{[^{}]*\})"
_NAME = rf"(?:[A-Za-z]|\\[A-Za-z]+)(?:\s*{_INDEX})?'*(?:\s*\([A-Za-z, ]+\))?"
_ORDER = r"(?:\s*\^\s*(?:\{\s*\w\s*\}|\w))?"
_D = r"(?:d(?![A-Za-z]{2})|\\partial(?![A-Za-z]))"
DERIVATIVE = re.compile(
    rf"\\frac\s*\{{\s*(?P<of>{_D}{_ORDER}\s*{_NAME})\s*\}}\s*\{{\s*(?P<by>(?:{_D}\s*{_NAME}{_ORDER}\s*)+)\}}"
    r"|(?<![A-Za-z\\])(?P<plain_of>d\s*[A-Za-z])\s*/\s*(?P<plain_by>d\s*[A-Za-z])(?![A-Za-z])"
)
"""A derivative of what has only a name: \\frac{dy}{dx}, \\frac{\\partial^2 u}{\\partial x\\partial y}, ds/dt."""
_PRIMED = re.compile(
    rf"(?P<name>\\[A-Za-z]+|[A-Za-z]|(?<![\d.])\d+(?:\.\d+)?)(?P<index>\s*{_INDEX})?(?P<primes>'+)(?!\d)"
    rf"(?P<later>\s*{_INDEX})?"
)
_NUMBER_TO_THE = re.compile(r"((?:(?<![A-Za-z\\}\])'\d.])(?<!_)\d+(?:\.\d+)?|(?<![A-Za-z\\])e)\s*)\^\s*\{T\}")
_WITH_BOUNDS = re.compile(r"\\(?:int|oint|sum|prod|lim)(?![A-Za-z])")


def with_symbols(text: str) -> str:
    """A cleaned expression in which symbols stand for derivatives of what has only a name, for names and numbers with
    primes, and for whole terms with a transpose, or a prime behind a bracket: matrices do not commute, and what a
    primed bracket is depends on what is unknown. Equal ones have equal symbols."""
    text = DERIVATIVE.sub(_derivative, text)
    text = _PRIMED.sub(_primed, text)
    if "^{T}" in text and _WITH_BOUNDS.search(text) is None:
        text = _NUMBER_TO_THE.sub(r"\1^{1 \\cdot T}", text)  # a power; the parser would drop a mere T
    else:
        text = text.replace("^{T}", "^{1 \\cdot T}")
    if "^{T}" not in text and "'" not in text:
        return text
    parts = [
        (sign, _symbol(squeezed(part)) if "^{T}" in part or "'" in part else part)
        for sign, part in split(text, {"+", "-"})
    ]
    return "".join(sign + part for sign, part in parts)


def _symbol(text: str) -> str:
    """The symbol for a text: a letter with an index that no answer has."""
    return f" Q_{{{int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)}}} "


def _derivative(match: re.Match[str]) -> str:
    of, by = match["of"] or match["plain_of"], match["by"] or match["plain_by"]
    return _symbol(re.sub(r"[\s{}]", "", f"{of}/{by}"))


def _primed(match: re.Match[str]) -> str:
    index = re.sub(r"[\s{}]", "", match["index"] or match["later"] or "")
    # Without white space behind it, so that f'(x) is a function of x.
    return _symbol(match["name"] + index + match["primes"]).rstrip()
