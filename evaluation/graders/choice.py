"""Multiple choice: the letter in the box."""

from __future__ import annotations

import re

VERSION = "1"
"""Part of every score's protocol; raise it when the same answer may get another verdict."""

_WRAPPER = re.compile(r"\\(?:text|textbf|mathbf|mathrm|bf|rm)\b")
_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:].*)?", re.DOTALL)


def letter(answer: str | None) -> str | None:
    """The option that a boxed answer names: B, b, (B), \\\\text{B}, "B. seven", "(B) seven"; None where it names none."""
    if answer is None:
        return None
    plain = " ".join(_WRAPPER.sub("", answer).translate(str.maketrans("", "", "{}$\\")).split())
    found = _LETTER.fullmatch(plain)
    return found[1].upper() if found else None
