"""Multiple choice: the letter in the box."""

import re

VERSION = "2"  # part of every score's protocol; raise it when the same answer may get another verdict

_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:bf|it|rm|sf|tt)|mbox|bf|rm|it|boxed|fbox|left|right|quad)\b|\\[,;:! ]|\*\*"
)
_PREFIX = r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? )?"
_LETTER = re.compile(rf"(?i:{_PREFIX})[(\[]?(?P<letter>[A-Za-z])(?P<rest>[^A-Za-z].*)?", re.DOTALL)
_MARKED = re.compile(r"[).:\]]|\s+(?:[-–—=]\s|\()")
_ALONE = re.compile(r"[\s()\[\].:=–—-]*[A-Za-z][\s()\[\].:]*")
_ANOTHER = re.compile(r"(?:\b(?i:or|and)\b|[,/&+|;])\s*[(\[]?[A-Z](?:[).:\]]|\s*$)")


def letter(answer: str | None) -> str | None:
    """The option that a boxed answer names; None where it names none, or more than one ("A or B").

    Read are B, b, (B), [B], \\text{B}, "Option B", and with the option's text "B. seven", "(B) seven",
    "B \\text{ (42)}", "B seven". Before words without a mark between, the letter is a capital, and neither A nor I,
    which may be words themselves.
    """
    if answer is None:
        return None
    plain = " ".join(_WRAPPER.sub(" ", answer).translate(str.maketrans("", "", "{}$\\")).split())
    match = _LETTER.fullmatch(plain)
    if match is None:
        return None
    named, rest = match["letter"], match["rest"] or ""
    if rest.strip(" ).:]"):
        if _ALONE.fullmatch(rest) or _ANOTHER.search(rest):
            return None
        before_words = rest[0].isspace() and named.isupper() and named not in "AI" and not _mentions_another(rest)
        if not _MARKED.match(rest) and not before_words:
            return None
    return named.upper()


def _mentions_another(rest: str) -> bool:
    """Whether words after a letter may name another one: "B not C"."""
    return re.search(r"\b[A-Z]\b|\b(?i:or|not)\b|^\s*[^\w\s]", rest) is not None
