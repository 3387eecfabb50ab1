"""Maths: answers that are one number and its unit, and answers that are another thing than the gold answer although math-verify drops what
tells them apart: bases, brackets, a second number."""

from __future__ import annotations

import re

from evaluation.graders.notation import WRAPPED, value, whole_number, without_percent

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_FRACTION = r"\\frac\{\d+\}\{\d+\}"
_NUMBER = re.compile(
    rf"[-+]?\s*(?:{_DIGITS}?{_FRACTION}|\d+\s*/\s*\d+|{_DIGITS})(?:\s*\\times 10\^\{{\d+\}}|\s*\\?%)?(?![\d.,/]|\s*\\times)"
)
_CODE = re.compile(r"(?:\\text\s*\{\s*)?(?:USD|US|EUR|GBP|CAD|AUD|INR|Rs\.?)\s*\}?\s*(?=[-+.\d])")
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{|\\mathrm\{)?\s*(st|nd|rd|th)\s*\}*")
_EXPONENT = re.compile(r"(?<=[A-Za-z}])\s*(?:\^\s*(?:\{\s*-?[123]\s*\}|-?[123])|[²³])|\^\s*\\circ")
_UNIT_WORDS = re.compile(r"[A-Za-z'.\-/(),\s]*")
_BETWEEN_WORDS = re.compile(r"['.\-/(),\s]+")
_SHORT_UNIT = re.compile(r"[mcdk]m|[mcd]l|[mk]g|lbs?|ft|in|yds?|mi|oz|hrs?|min|sec|[mk]ph|[ap]m|sq|cu")
"""Units of few letters or without vowels; any others may be a product."""
_CHANGING = re.compile(
    r"or|and|plus|minus|least|most|not|base|remainder|half|halves|thirds?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|"
    r"hundredths?|thousandths?|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|squared|cubed|factorial|pi|root|sqrt|"
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty",
    re.IGNORECASE,
)
"""Words beside a number after which it is another number, or more than one."""
_PLAIN_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\b\.?")
_CONJUNCTION = re.compile(r"\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b")
_BASE = re.compile(
    r"[({]?([0-9][0-9A-Fa-f]*)[)}]?\s*_\s*(?:\{\s*(?:\\text\{)?\s*(?:base\s+)?([0-9a-z]+)\s*\}*|([0-9]))"
)
_BASES = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_BRACKETS = re.compile(r"\\[{}]|[()\[\],]")
_CLOSED_INFINITY = re.compile(r"\\infty\s*(?:\\right)?\s*\]|\[\s*-\s*\\infty")


def bare(cleaned: str, *, marked: bool = False) -> str:
    """A cleaned answer without its unit, where it is one number followed (or preceded: USD) by one; any other as it is.

    "18 dollars", "5 \\text{ cm}^2", "90^\\circ", "12^{th}" are 18, 5, 90, 12. Nothing that may be a factor is a unit ("5x", "5 xy",
    "18 score and seven"), and no words after which the number is another ("18 or more").

    Args:
        marked: only units that are marked as words, \\text{ cm}, count, as is safe for a gold answer, where all else may be variables.
    """
    if not marked and (ordinal := _ORDINAL.fullmatch(cleaned)) is not None and ordinal[2] == _suffix(ordinal[1]):
        return ordinal[1]
    text = _CODE.sub("", cleaned, count=1) if _CODE.match(cleaned) else cleaned
    number = _NUMBER.match(text)
    if number is None:
        return cleaned
    return number[0].strip() if _is_unit(text[number.end() :], marked=marked) else cleaned


def _suffix(number: str) -> str:
    return "th" if number[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")


def _is_unit(tail: str, *, marked: bool) -> bool:
    tail = _EXPONENT.sub("", tail)
    beside = WRAPPED.sub(" ", tail)
    within = " ".join(found[1] for found in WRAPPED.finditer(tail))
    if not _UNIT_WORDS.fullmatch(beside + within) or beside[:1].isalpha() or (marked and beside.strip()):
        return False
    plain, others = (list(filter(None, _BETWEEN_WORDS.split(words))) for words in (beside, within))
    return not any(map(_CHANGING.fullmatch, plain + others)) and all(map(_is_word, plain))


def _is_word(word: str) -> bool:
    return _SHORT_UNIT.fullmatch(word) is not None or (
        len(word) > 2 and re.search("[aeiou]", word, re.IGNORECASE) is not None
    )


def conflict(gold: str, answer: str) -> str | None:
    """Why a cleaned answer cannot be the cleaned gold one, whatever math-verify says; None where nothing speaks against it.

    Compared are the base of a number, sets with tuples and intervals, intervals closed at infinity; and an answer that is several numbers
    without anything between them, or an equation between different numbers, is none.
    """
    if _apart(answer) and not _apart(gold):
        return "digits with white space between them are no number"
    if _base(answer) not in (_base(gold), None if _base(gold) is not None else "10"):
        return "in another base"
    kinds = _kinds(gold), _kinds(answer)
    if all(kinds) and kinds[0] != kinds[1]:
        return "a set is no tuple or interval"
    if _CLOSED_INFINITY.search(answer) and not _CLOSED_INFINITY.search(gold):
        return "no interval is closed at infinity"
    if _contradicts_itself(answer):
        return "an equation between different numbers"
    number = _NUMBER.match(answer)
    if number is not None and value(without_percent(gold)) is not None:
        words = _BETWEEN_WORDS.split(WRAPPED.sub(r" \1 ", answer[number.end() :]))
        if any(map(_CHANGING.fullmatch, words)):
            return "words after which it is another number"
    return None


def _apart(cleaned: str) -> bool:
    """Whether nothing stands between two numbers but white space and words, as in "1 2" or "3 feet 6 inches"."""
    text = _PLAIN_WORD.sub(" ", WRAPPED.sub(" ", _CONJUNCTION.sub(",", cleaned)))
    return (
        re.fullmatch(r"[-+\d.,\s]+", text) is not None
        and re.search(r"\d\s+\d", text) is not None
        and whole_number(text) is None
    )


def without_base(gold: str, answer: str) -> tuple[str, str]:
    """Both without the base that a cleaned gold answer is written in, 2516_8; the answer may have left it out."""
    found = _BASE.fullmatch(gold)
    if found is None:
        return gold, answer
    same = _BASE.fullmatch(answer)
    return found[1], answer if same is None else same[1]


def _base(cleaned: str) -> str | None:
    found = _BASE.fullmatch(cleaned)
    return None if found is None else _BASES.get(found[2], found[2]) if found[2] else found[3]


def _kinds(cleaned: str) -> set[str]:
    """ "set" and "sequence" (tuples and intervals), as far as groups of these kinds with a comma and no such group within are there."""
    kinds: set[str] = set()
    open_groups: list[list[int]] = []  # [commas, groups with commas within]
    for token in _BRACKETS.finditer(cleaned):
        if token[0] in ("\\{", "(", "["):
            open_groups.append([0, 0])
        elif token[0] == ",":
            if open_groups:
                open_groups[-1][0] += 1
        elif open_groups:
            commas, within = open_groups.pop()
            if commas and not within:
                kinds.add("set" if token[0] == "\\}" else "sequence")
            if commas and open_groups:
                open_groups[-1][1] += 1
    return kinds


def _contradicts_itself(cleaned: str) -> bool:
    """Whether it is an equation between numbers that differ by more than what a rounded value may."""
    numbers = (
        [number for part in cleaned.split("=") if (number := value(part.strip())) is not None] if "=" in cleaned else []
    )
    return bool(numbers) and max(numbers) - min(numbers) > max(map(abs, numbers)) / 100
