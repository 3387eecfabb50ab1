"""Multiple choice: the letter in the box; and maths answers that come with the letter of an option."""

import re
import unicodedata

from evaluation.graders.latex import without_markup

VERSION = "3"  # part of every score's protocol; raise it when the same answer may get another verdict

_WRAPPER = re.compile(r"\\(?:text|math\w+|operatorname)\b")
_MARKUP = "*_`\"' ,;。、"
_PREFIX = (
    r"(?:(?:so|thus|hence|therefore)\b,? ?)?(?:(?:the|my) )?(?:(?:final|correct|right|best) |正确的?)?"
    r"(?:option|choice|answer|letter|选项?|答案)(?:s? (?:is|are)\b|是|为)?:? ?"
)
_LETTER = re.compile(rf"(?i:(?:{_PREFIX})*)[(\[\"']? ?(?P<letter>[A-Za-z])(?P<rest>[^A-Za-z].*)?", re.DOTALL)
_PLAIN_LETTER = re.compile(r"(?:\\text(?:bf|it|rm)?\{)?(\()?(?P<letter>[A-Za-z])(?(1)\))\}?")
_LETTERS = r"[(\[]?[A-Z][)\].]*(?:(?:,| or| and| nor)+ [(\[]?[A-Z][)\].]*)*"
_REMARK = re.compile(
    rf"(?i: is (?:the )?(?:correct|right|best)(?: (?:one|answer|option|choice))?| is the (?:answer|one))[.!]?"
    rf"|[,;]? ?\(?(?i:(?:and |but )?(?:not|rather than|instead of)) {_LETTERS}"
)
"""What may follow the letter at the end without naming another one."""
_MARK = re.compile(r" ?[).:\]]+| [-–—=](?= )| (?=\()")
_OF_LETTERS = re.compile(r"(?:(?:[A-Z]|\b(?i:and|or))(?:\b[\s,;/&()\[\].:|+-]*|$))+")
_LISTED = re.compile(r"[A-Z](?:, [A-Z])*,? (?i:and|or) [A-Z]\b[ ).]*")
_COUNTING = re.compile(r"[ (]*(?i:both|neither|either|all|none|only|statements?|options?|choices?)\b")
_ANOTHER = re.compile(
    r"(?:\b(?i:or|and)\b|[,/&+|;])\s*[(\[]?[A-Z][).:\]]|(?<![\w.(])(?:[(\[]?[A-Z][)\]]\s+\w|[A-Z][.:]\s+[a-z\d(])"
)
"""A second letter with a mark of its own."""
_TEXT = r"\\text\s*\{"
_OPTION = re.compile(
    rf"[\s$]*+(?:(?P<font>{_TEXT}|\*\*)?\s*(?:\((?:{_TEXT})?(?P<one>[A-F])\}}?\)|(?P<two>[A-F])[).:](?=[\s}}\\$*]))"
    rf"(?(font)[\s~]*+(?P<end>\}}|\*\*)?)|{_TEXT}\s*(?P<three>[A-F])(?:\s+\}}|\}}\s*[.:)]|\}}\s))[\s~$]*+(?:=\s*)?"
    r"(?P<rest>(?!\\(?:cup|cap|cdot|times|to|in|le|ge|ne|lor|land|sub\w*)\b)[^\s^_+*/=,;].*)",
    re.DOTALL,
)
"""The letter of an option and what it says, as contests for schools write it: \\textbf{(C)}\\ 27, without fonts."""
_LETTER_AFTER = re.compile(rf"{_TEXT}\s*\(([A-F])\)\s*\}}[\s$.]*\Z")
_LETTER_ALONE = re.compile(rf"[\s$]*+(?:{_TEXT}|\*\*)?\s*\(?(?:{_TEXT})?([A-F])\}}?\)?\.?\s*+(?:\}}|\*\*)?[\s$.]*")
_SINGLE_LETTER = re.compile(r"(?<![A-Za-z])[A-F](?![A-Za-z])")


def letter(answer: str | None) -> str | None:
    """The option that a boxed answer names; None where it names none, or more than one ("A or B").

    Read are B, b, (B), [B], \\text{B}, "Option B", "B is correct", "B, not C", and with the option's text "B. seven",
    "(B) seven", "B \\text{ (42)}", "B seven". The text after a mark may name letters itself, "D. Both A and C", but
    not mark them as a second choice, "A. two or B. three". Before words without a mark between, the letter is a
    capital, and neither A nor I, which may be words themselves.
    """
    if answer is None:
        return None
    if (plain := _PLAIN_LETTER.fullmatch(answer)) is not None:  # nearly every answer, and the rest takes its time
        return plain["letter"].upper()
    match = _LETTER.fullmatch(_plain(answer))
    if match is None:
        return None
    named, rest = match["letter"].upper(), match["rest"] or ""
    if (remark := _REMARK.search(rest)) is not None and remark.end() == len(rest):
        rest = rest[: remark.start()]
    if not rest.strip(" ).:]\"'"):
        return named
    if (mark := _MARK.match(rest)) is not None:
        return named if _is_text(rest[mark.end() :].strip()) else None
    before_words = rest[0].isspace() and match["letter"].isupper() and named not in "AI"
    return named if before_words and (_COUNTING.match(rest) or not _mentions_another(rest)) else None


def without_letters(gold: str, answer: str) -> tuple[str, str]:
    """A gold answer of maths and an answer, without the letter of the option that either comes with.

    \\textbf{(C)}\\ 27 is 27, and C where the other is a mere letter. Where both come with letters, these have to agree.
    """
    (of_gold, gold_text), (of_answer, answer_text) = _lettered(gold), _lettered(answer)
    if of_gold and of_answer and not (of_gold == of_answer and gold_text and answer_text):
        return of_gold, of_answer
    return gold_text or gold, answer_text or answer


def _lettered(answer: str) -> tuple[str | None, str]:
    """The letter of an option, if the answer has one, and what else it says."""
    if _SINGLE_LETTER.search(answer) is None:
        return None, answer
    plain = without_markup(answer)
    if (alone := _LETTER_ALONE.fullmatch(plain)) is not None:
        return alone[1], ""
    if (after := _LETTER_AFTER.search(plain)) is not None:
        named, text = after[1], plain[: after.start()].rstrip(" ~\\")
    elif (option := _OPTION.fullmatch(plain)) is not None:
        named = option["one"] or option["two"] or option["three"]
        text = ("" if option["end"] else option["font"] or "") + option["rest"].rstrip()
    else:
        return None, answer
    return (named, text) if _is_text(_plain(text)) else (None, answer)


def _plain(answer: str) -> str:
    plain = _WRAPPER.sub(" ", without_markup(answer)) if "\\" in answer else answer
    text = plain.replace("**", " ").translate(str.maketrans("", "", "{}$\\"))
    return " ".join(unicodedata.normalize("NFKC", text).split()).strip(_MARKUP)


def _is_text(text: str) -> bool:
    """Whether what stands after a marked letter is the text of that option, and no further choice."""
    if _OF_LETTERS.fullmatch(text.lstrip("([")):
        return _LISTED.fullmatch(text) is not None
    begins_with_another = re.match(r"(?:(?i:or|and)\b|[,/&+|;])", text) is not None
    return not begins_with_another and (bool(_COUNTING.match(text)) or not _ANOTHER.search(text))


def _mentions_another(rest: str) -> bool:
    """Whether words after a letter may name another one, or deny it: "B two or C", "B is wrong"."""
    return re.search(r"\b[A-Z]\b|\b(?i:or|not|wrong|incorrect|false)\b|^\s*[^\w\s]", rest) is not None
