"""Maths: answers that are one number and its unit, and answers that are another thing than the gold answer although
math-verify drops what tells them apart: bases, brackets, a second number."""

import re

from evaluation.graders.notation import WRAPPED, value, whole_number, without_percent

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_FRACTION = r"\\frac\{\d+\}\{\d+\}"
_NUMBER = re.compile(
    rf"[-+]?\s*(?:{_DIGITS}?{_FRACTION}|\d+\s*/\s*\d+|{_DIGITS})"
    r"(?:\s*\\times 10\^\{\d+\}|\s*\\?%)?(?![\d.,/]|\s*\\times)"
)
_CODE = re.compile(r"(?:\\text\s*\{\s*)?(?:USD|US|EUR|GBP|CAD|AUD|INR|Rs\.?)\s*\}?\s*(?=[-+.\d])")
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{|\\mathrm\{)?\s*(st|nd|rd|th)\s*\}*")
_EXPONENT = re.compile(r"(?<=[A-Za-z}])\s*(?:\^\s*(?:\{\s*-?[123]\s*\}|-?[123])|[²³])|\^\s*\\circ")
_UNIT_WORDS = re.compile(r"[A-Za-z'.\-/(),\s]*")
_BETWEEN_WORDS = re.compile(r"['.\-/(),\s]+")
_SHORT_UNIT = re.compile(r"[mcdk]m|[mcd]l|[mk]g|lbs?|ft|in|yds?|mi|oz|hrs?|min|sec|[mk]ph|[ap]m|sq|cu")
"""Units of few letters or without vowels; any others may be a product."""
_CHANGING = re.compile(
    r"or|and|plus|minus|least|most|not|base|remainder|squared|cubed|factorial|pi|root|sqrt|dozens?|half|halves|"
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?|"
    r"(?:hundred|thousand|million|billion|trillion)s?|"
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
_BASES = dict(zip(("two", "three", "four", "five", "six", "seven", "eight", "nine"), "23456789", strict=True))
_BASES["ten"] = "10"
_BRACKETS = re.compile(r"\\[{}]|[()\[\],]")
_CLOSED_INFINITY = re.compile(r"\\infty\s*(?:\\right)?\s*\]|\[\s*-\s*\\infty")


def bare(cleaned: str, *, marked: bool = False) -> str:
    """A cleaned answer without its unit, where it is one number followed (or preceded: USD) by one; any other as it is.

    "18 dollars", "5 \\text{ cm}^2", "90^\\circ", "12^{th}" are 18, 5, 90, 12. Nothing that may be a factor is a unit
    ("5x", "5 xy", "18 score and seven"), and no words after which the number is another ("18 or more"). With `marked`
    only units marked as words, \\text{ cm}, count: in a gold answer all else may be variables.
    """
    if not marked and (ordinal := _ORDINAL.fullmatch(cleaned)) is not None:
        last = "th" if ordinal[1][-2:] in ("11", "12", "13") else ordinal[1][-1]
        if ordinal[2] == {"1": "st", "2": "nd", "3": "rd"}.get(last, "th"):
            return ordinal[1]
    text = _CODE.sub("", cleaned, count=1) if _CODE.match(cleaned) else cleaned
    number = _NUMBER.match(text)
    return number[0].strip() if number is not None and _is_unit(text[number.end() :], marked=marked) else cleaned


def _is_unit(tail: str, *, marked: bool) -> bool:
    tail = _EXPONENT.sub("", tail)
    beside = WRAPPED.sub(" ", tail)
    within = " ".join(wrapped[1] for wrapped in WRAPPED.finditer(tail))
    if not _UNIT_WORDS.fullmatch(beside + within) or beside[:1].isalpha() or (marked and beside.strip()):
        return False
    plain, others = (list(filter(None, _BETWEEN_WORDS.split(words))) for words in (beside, within))
    return not any(map(_CHANGING.fullmatch, plain + others)) and all(map(_is_word, plain))


def _is_word(word: str) -> bool:
    return bool(_SHORT_UNIT.fullmatch(word)) or (len(word) > 2 and bool(re.search("[aeiou]", word, re.IGNORECASE)))


def conflict(gold: str, answer: str) -> str | None:
    """Why a cleaned answer cannot be the cleaned gold one, whatever math-verify says; None where it may be."""
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
    two_numbers = re.fullmatch(r"[-+\d.,\s]+", text) is not None and re.search(r"\d\s+\d", text) is not None
    return two_numbers and whole_number(text) is None


def without_base(gold: str, answer: str) -> tuple[str, str]:
    """Both without the base that a cleaned gold answer is written in, 2516_8; the answer may have left it out."""
    if (number := _BASE.fullmatch(gold)) is None:
        return gold, answer
    same = _BASE.fullmatch(answer)
    return number[1], answer if same is None else same[1]


def _base(cleaned: str) -> str | None:
    number = _BASE.fullmatch(cleaned)
    return None if number is None else _BASES.get(number[2], number[2]) if number[2] else number[3]


def _kinds(cleaned: str) -> set[str]:
    """The kinds of the groups that have a comma and no such group within: "set" and "sequence" (tuples, intervals)."""
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
    sides = cleaned.split("=") if "=" in cleaned else []
    numbers = [number for side in sides if (number := value(side.strip())) is not None]
    return bool(numbers) and max(numbers) - min(numbers) > max(map(abs, numbers)) / 100
