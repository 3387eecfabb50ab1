"""Maths: what an answer says, as text: the many ways to write one answer, brought to one before any algebra is done."""

import re
import unicodedata
from fractions import Fraction

_SYMBOLS = str.maketrans(
    {"°": "^\\circ ", "∞": "\\infty ", "∅": "\\emptyset ", "≤": "\\le ", "≥": "\\ge ", "×": "\\times ", "π": "\\pi "}
    | {"·": "\\cdot ", "⋅": "\\cdot ", "⁄": "/", "∕": "/", "−": "-"}
    | {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full width
    | {one: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", one).split("⁄")) for one in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_SQUARE_ROOT = re.compile(r"√\s*(?:(\d+(?:\.\d+)?|[A-Za-z])|\(([^()]*)\)|\{([^{}]*)\})")
# A dollar sign that is to be seen is \$, one that only opens maths is $; neither says anything about the number.
_CURRENCY = re.compile(r"(?<!\\)\\\$|\$|[€£¥₹]|\\(?:pounds|euro|texteuro|textdollar)\b")
_NEGATIVE_SPACE = re.compile(r"(?<!\\)\\!\s*")
# Not after another backslash: two of them end the row of a matrix.
_SPACING = re.compile(r"(?<!\\)\\[,;: ]|\\(?:quad|qquad)\b|~")
_SWITCH = re.compile(r"\\(?:bf|rm|it|displaystyle)\b\s*")
_WRAPPER = r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mbox)\s*"
_WITHOUT_LETTERS = re.compile(_WRAPPER + r"\{([^{}A-Za-z\\]*)\}")
_NUMBER_WRAPPED = re.compile(r"(?:" + _WRAPPER + r")?\{\s*(?=[-+.\d\\])")
_BOLD = re.compile(r"\*\*(.*)\*\*", re.DOTALL)
WRAPPED = re.compile(_WRAPPER + r"\{([^{}]*)\}")
"""Words in maths, \\text{...} and its like; the group is what stands in it."""
_DEGREE = re.compile(r"\^\s*\{\s*\\circ\s*\}|\\degree\b")
_PERCENT_WORD = re.compile(r"\s*(?:\\text\{\s*per ?cent\s*\}|\bper ?cent\b)\s*")
_SMALL_FRACTION = re.compile(r"\\[dtc]?(frac|binom)\s*(?:(\d)|\{\s*(\d+)\s*\})\s*(?:(\d)|\{\s*(\d+)\s*\})")
_MIXED = re.compile(r"([-+]?\s*\d+)\s+(\d+)\s*/\s*(\d+)")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in\b\s*(?=[\[(\\])")
_GREATER = r"(>|\\(?:ge|geq|geqslant)\b)"
_FALLING = re.compile(rf"([^<>=]+?){_GREATER}([^<>=]+?){_GREATER}([^<>=]+)")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d*)?")
_SPACED = re.compile(r"[+-]? ?\d{1,3}(?: \d{3})+|[+-] ?\d+")
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})")
_POWERS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_IN_WORDS = re.compile(rf"([+-]?\d[\d,]*(?:\.\d+)?)\s*(\\text\{{)?\s*({'|'.join(_POWERS)})\b\s*(.*)", re.DOTALL)
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_RATIO = re.compile(r"([+-]?)(?:([0-9]+)/([0-9]+)|([0-9]*)\\frac\{([0-9]+)\}\{([0-9]+)\})")
_MARKS = ".,;: \t\n"
MOST_DIGITS = 400  # characters of a number that `value` reads


def clean(answer: str) -> str:
    """The answer without currency signs, LaTeX spacing, marks of emphasis, and the punctuation that ends a sentence.

    What math-verify would misread is written otherwise: 1.5e3 is 1.5 \\times 10^{3} and no product with Euler's e,
    "3 1/2" is 3\\frac{1}{2} and not 31/2, 2 million is 2 \\times 10^{6}, 62.5 percent is 62.5\\%, x \\in [1,2] is
    [1,2], and 5 > x > 3 is 3 < x < 5.
    """
    text = _POWER.sub(lambda power: f"^{{{power[0].translate(_RAISED)}}}", answer.translate(_SYMBOLS))
    text = _CURRENCY.sub("", _SQUARE_ROOT.sub(lambda root: f"\\sqrt{{{root[1] or root[2] or root[3]}}}", text))
    text = _SWITCH.sub("", _SPACING.sub(" ", _NEGATIVE_SPACE.sub("", text)))
    text = _WITHOUT_LETTERS.sub(r"\1", _DEGREE.sub(r"^\\circ", text)).replace("\\varnothing", "\\emptyset")
    text = _PERCENT_WORD.sub(r"\\% ", _unwrapped(_without_marks(text)))
    text = _SMALL_FRACTION.sub(lambda f: f"\\{f[1]}{{{f[2] or f[3]}}}{{{f[4] or f[5]}}}", text).strip()
    if (match := _SCIENTIFIC.fullmatch(text)) is not None:
        return f"{match[1]} \\times 10^{{{match[2]}}}"
    if (match := _IN_WORDS.fullmatch(text)) is not None:
        return f"{_ungrouped(match[1])} \\times 10^{{{_POWERS[match[3]]}}}{match[2] or ' '}{match[4]}".strip()
    if (match := _MIXED.fullmatch(text)) is not None:
        return f"{match[1]}\\frac{{{match[2]}}}{{{match[3]}}}"
    if (match := _MEMBER.match(text)) is not None:
        text = text[match.end() :]
    if (match := _FALLING.fullmatch(text)) is not None:
        first, second = ("<" if sign == ">" else "\\le " for sign in (match[4], match[2]))
        return f"{match[5]}{first}{match[3]}{second}{match[1]}"
    return text


def as_text(answer: str) -> str:
    """The answer for comparison as text: cleaned, words out of their \\text{}, without \\left, \\right and white space.

    White space between two digits stays: "1 2" is not 12.
    """
    text = WRAPPED.sub(r"\1", clean(answer)).replace("\\left", "").replace("\\right", "")
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


def whole_number(answer: str) -> str | None:
    """Canonical text of a whole number, else None: of "073", "73.0", "1{,}040", "1\\,040", "\\$73", but not of "73
    apples", "5/1", "1 2".

    Text, not `int`: nothing limits how many digits a model writes, and Python refuses to convert more than a few
    thousand.
    """
    match = _WHOLE.fullmatch(answer)
    if match is None:
        text = clean(answer)
        match = _WHOLE.fullmatch(_ungrouped(text.replace(" ", "") if _SPACED.fullmatch(text) else text))
    return None if match is None else ("-" if match[1] == "-" and match[2] != "0" else "") + match[2]


def value(cleaned: str) -> Fraction | None:
    """The number of a cleaned answer that is a decimal, a ratio of whole numbers or a mixed number; None for others."""
    text = _ungrouped("".join(cleaned.split()) if re.search(r"\d\s+\d", cleaned) is None else cleaned)
    if len(text) > MOST_DIGITS:
        return None
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    ratio = _RATIO.fullmatch(text)
    if ratio is None:
        return None
    whole, over, under = int(ratio[4] or 0), int(ratio[2] or ratio[5]), int(ratio[3] or ratio[6])
    # A whole number before an improper fraction is a factor, or a mistake.
    if under == 0 or (ratio[4] and over >= under):
        return None
    return (whole + Fraction(over, under)) * (-1 if ratio[1] == "-" else 1)


def without_percent(cleaned: str) -> str:
    """The cleaned answer without the percent sign at its end, where there is one."""
    return re.sub(r"\s*\\?%$", "", cleaned)


def _ungrouped(text: str) -> str:
    return text.replace("{,}", "").replace(",", "") if _GROUPED.fullmatch(text) else text


def _without_marks(text: str) -> str:
    """Without what ends a sentence, and without the backslash that is left of a "\\ " whose space was cut off."""
    text = text.strip().rstrip(_MARKS)
    return text[:-1].rstrip(_MARKS) if text.endswith("\\") and not text.endswith("\\\\") else text


def _unwrapped(text: str) -> str:
    """Out of the **, the braces or the \\text{} around the whole, where it is not words that stand there."""
    while True:
        if (bold := _BOLD.fullmatch(text)) is not None:
            text = _without_marks(bold[1])
        elif (opening := _NUMBER_WRAPPED.match(text)) is not None and _closes_at_the_end(text):
            text = _without_marks(text[opening.end() : -1])
        else:
            return text


def _closes_at_the_end(text: str) -> bool:
    """Whether the first brace is closed by the last character and by none before."""
    depth = 0
    for token in re.finditer(r"\\[{}]|([{}])", text):
        if token[1] is not None:
            depth += 1 if token[1] == "{" else -1
            if depth == 0:
                return token.end() == len(text)
    return False
