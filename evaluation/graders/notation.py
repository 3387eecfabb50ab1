"""Maths: what an answer says, as text: the many ways to write one answer, brought to one before any algebra is done."""

import re
import unicodedata
from fractions import Fraction

from evaluation.graders.latex import with_plain_exponents, with_usual_names, without_markup

_SYMBOLS = str.maketrans(
    {"°": "^\\circ ", "℃": "^\\circ \\text{C}", "℉": "^\\circ \\text{F}", "º": "^\\circ ", "∞": "\\infty "}
    | {"∅": "\\emptyset ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "⩽": "\\le ", "⩾": "\\ge ", "π": "\\pi "}
    | {"×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "±": "\\pm ", "∓": "\\mp ", "≈": "\\approx ", "≡": "\\equiv "}
    | {"∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∨": "\\lor ", "∧": "\\land ", "∖": "\\setminus ", "∣": "\\mid "}
    | {"ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "∠": "\\angle ", "…": "\\ldots ", "⋯": "\\ldots ", "÷": "/", "∶": ":"}
    | {
        "⁄": "/",
        "∕": "/",
        "−": "-",
        "–": "-",
        "。": ".",
        "、": ",",
        "~": " ",
        "¢": "\\text{ cents}",
        "⟨": "\\langle ",
        "⟩": "\\rangle ",
    }
    | {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full width
    | dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " ")
    | dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), "")
    | {one: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", one).split("⁄")) for one in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_INDEX = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_DOTS = re.compile(r"\.{3,}")
_SQUARE_ROOT = re.compile(r"√\s*(?:(\d+(?:\.\d+)?|[A-Za-z])|\(([^()]*)\)|\{([^{}]*)\})")
# A dollar sign that is to be seen is \$, one that only opens maths is $; neither says anything about the number.
_CURRENCY = re.compile(r"(?<!\\)\\\$|\$|[€£¥￥₹₽₩](?=\s*[-\d.])|(?<=\d)\s*[€£¥￥₹₽₩]")
_GROUPING = re.compile(r"(?<=\d)(?:\{,\}|,\s*\\!\s*|\\,|\\:|\\;|\\ )(?=\d{3}(?!\d))")
_CHOOSE = re.compile(r"\{\s*([^{}]*?)\s*\\(choose|over)\b\s*([^{}]*?)\s*\}")
_ROMAN = re.compile(r"\{\s*\\rm\b\s*([^{}]*)\}|\\rm\s*\{([^{}]*)\}")
_DISPLAY = re.compile(r"\\(?:begin|end)\s*\{(?:equation|displaymath|math|multline)\*?\}")
_NOT = re.compile(r"\\not\s*(=|\\in\b)")
_LETTER = r"[^\W\d_]"
_WITHOUT_LETTERS = re.compile(r"\\text\s*\{((?:(?!" + _LETTER + r")[^{}\\])*)\}")
_NUMBER_IN_WORDS = re.compile(rf"\\text\s*\{{\s*([-+]?\d[\d.,/]*)(?![\d:])\s*((?={_LETTER}|°)(?:[^{{}}\d]|\^-?\d)*)\}}")
_SYMBOL_IN_WORDS = re.compile(r"\\text\s*\{([ie])\}")
# A unit as LaTeX sets it, \\mathrm{kg\\cdot m^2\\,s^{-1}}, and the micro sign outside of it, \\mu\\text{m}.
_UNIT = re.compile(
    r"\\text\s*\{((?=[^{}\d]*[\\^])(?:[^{}\\^\d+=<>*-]|\\(?:cdot|times|mu|Omega)(?![A-Za-z])|\^\s*\\circ(?![A-Za-z])|"
    r"\^\s*(?:\{\s*-?\d\s*\}|-?\d))*)\}"
)
_BETWEEN_UNITS = re.compile(r"(\s*\\(?:cdot|times)\s*|\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d|\\circ))")
_MICRO = re.compile(r"\\mu\\text\s*\{(?=(?:mol|[mgslLAVWJFHN])\})")
_BOLD = re.compile(r"(\*{1,3}|_{1,2}|`+)(.+)\1", re.DOTALL)
WRAPPED = re.compile(r"\\text\s*\{([^{}]*)\}")
"""Words in maths; the group is what stands in it."""
_DEGREE = re.compile(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ\b")
_PERCENT_WORD = re.compile(r"\s*(?:\\text\{\s*per ?cent(?:age)?\s*\}|\bper ?cent(?:age)?\b|(?<!\\)%)\s*")
_ARGUMENT = r"(?:\{\s*([^{}]*?)\s*\}|([0-9a-zA-Z]|\\(?:pi|theta|alpha|beta)\b))"
_SHORT_FRACTION = re.compile(r"\\(frac|binom)\s*" + _ARGUMENT + r"\s*" + _ARGUMENT)
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_REPEATING = re.compile(
    r"(?<![\d.])(\d+)\.(\d*)(?:\\(?:overline|bar|widebar)\s*(?:\{\s*(\d+)\s*\}|(\d))"
    r"|\\dot\s*\{?\s*(\d)\s*\}?(?:(\d*)\\dot\s*\{?\s*(\d)\s*\}?)?)(?!\d)"
)
_REPEATING_WHOLE = re.compile(r"([-+]?)(\d+)\.(\d*)(?:\((\d+)\)|(\d{1,6}?)\5{2,}\s*\\ldots)")
_MIXED = re.compile(r"([-+]?\s*\d+)\s+(\d+)\s*/\s*(\d+)")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?|[+-]?\d{1,2}(?:,\d{2})+,\d{3}|[+-]?\d{1,3}(?:['’]\d{3})+")
_SPACED = re.compile(r"[+-]? ?\d{1,3}(?: \d{3})+(?:\.\d*)?|[+-] ?\d+(?:\.\d*)?")
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})((?:\s+[^\W\d_]|\s*\\text(?![A-Za-z])).*)?", re.DOTALL)
_SCIENTIFIC_WITHIN = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE](\d{1,4})(?!\w|\.\d|[)}]*\s*_)")
_TIMES_TEN = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*[xX]\s*(?=10\s*\^)")
_POWER_OF_TEN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:\\times|\\cdot|\*)10\^(?:\{([+-]?\d{1,3})\}|(\d))")
_NEGATIVE = re.compile(
    r"\A(?:\\text\s*\{\s*(?:minus|negative)\s*\}|(?:minus|negative)\s)\s*(?=[\d.]|\\frac|\\sqrt|\\pi)", re.IGNORECASE
)
_INFINITY = re.compile(r"\A(?:\\text\s*\{\s*)?([+-]?)\s*infinity\s*\}?\Z", re.IGNORECASE)
_STARS = re.compile(r"(?<=[\w)}])\*\*(?=[\w({-])")  # a power as programs write it; **5** is bold
_EXPONENT = re.compile(r"\^\{(-?\d)\}(?!\d)")
_POWERS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7, "万": 4, "亿": 8}
_IN_WORDS = re.compile(
    rf"([+-]?\d[\d,]*(?:\.\d+)?)\s*(\\text\{{)?\s*({'|'.join(_POWERS)})s?(?![A-Za-z])\s*(.*)", re.DOTALL
)
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_RATIO = re.compile(r"([+-]?)(?:([0-9]+)/([0-9]+)|([0-9]*)\\frac\{(-?[0-9]+)\}\{(-?[0-9]+)\})")
_MARKS = ".,;: \t\n"
MOST_DIGITS = 400  # characters of a number that `value` reads


def clean(answer: str) -> str:
    """The answer without currency signs, LaTeX markup, and the punctuation that ends a sentence, with one notation for
    symbols that have several.

    ½, \\dfrac12 and \\nicefrac{1}{2} are \\frac{1}{2}, 0.\\overline{3} is \\frac{1}{3}, 62.5 percent is 62.5\\%, all
    words in maths are in \\text{}, \\mathrm{m\\,s^{-1}} is \\text{m s}^{-1}.
    """
    text = _POWER.sub(
        lambda power: f"^{{{power[0].translate(_RAISED)}}}", unicodedata.normalize("NFC", answer).translate(_SYMBOLS)
    )
    text = _DOTS.sub(r"\\ldots ", text)
    text = _INDEX.sub(lambda index: f"_{{{index[0].translate(_LOWERED)}}}", text)
    text = _SQUARE_ROOT.sub(lambda root: f"\\sqrt{{{root[1] or root[2] or root[3]}}}", text)
    text = _GROUPING.sub("", _CURRENCY.sub("", text)) if "\\" in text or "$" in text or not text.isascii() else text
    if "\\" in text or "{" in text:
        text = _CHOOSE.sub(lambda pair: f"\\{_CHOSEN[pair[2]]}{{{pair[1]}}}{{{pair[3]}}}", text)
        text = _DISPLAY.sub(" ", with_usual_names(text))
        text = _ROMAN.sub(lambda words: f"\\text{{{words[1] or words[2] or ''}}}", text)
        text = without_markup(_NOT.sub(lambda sign: "\\ne " if sign[1] == "=" else "\\notin ", text))
        text = _NUMBER_IN_WORDS.sub(r"\1\\text{ \2}", _WITHOUT_LETTERS.sub(r"\1", _DEGREE.sub(r"^\\circ", text)))
        text = _SYMBOL_IN_WORDS.sub(r" \1", _MICRO.sub(r"\\text{µ", _UNIT.sub(_unit, text)))
        text = _SHORT_FRACTION.sub(_fraction, _SHORT_ROOT.sub(r"\\sqrt{\1}", text))
        text = _REPEATING.sub(_repeating, text)
    text = _STARS.sub("^", text) if "**" in text else text
    text = with_plain_exponents(text) if "^" in text else text
    text = _PERCENT_WORD.sub(r"\\% ", _without_bold(_without_marks(text)))
    text = _INFINITY.sub(r"\1\\infty", text)
    return text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ").strip()


_CHOSEN = {"choose": "binom", "over": "frac"}


def number_form(item: str) -> str:
    """One cleaned item in the form that algebra reads right: 1.5e3 is 1.5 \\times 10^{3} and no product with Euler's e,
    "3 1/2" is 3\\frac{1}{2} and not 31/2, 2 million is 2 \\times 10^{6}, 0.(3) and 0.333... are \\frac{1}{3}, minus 3
    is -3. Two spaces before \\times tell what was written with an E."""
    item = _NEGATIVE.sub("-", item.strip())
    if (match := _SCIENTIFIC.fullmatch(item)) is not None:
        return f"{match[1]}  \\times 10^{{{match[2]}}}{match[3] or ''}"
    item = _SCIENTIFIC_WITHIN.sub(r"\1  \\times 10^{\2}", item)
    if (match := _IN_WORDS.fullmatch(item)) is not None:
        return f"{_ungrouped(match[1])} \\times 10^{{{_POWERS[match[3]]}}}{match[2] or ' '}{match[4]}".strip()
    if (match := _MIXED.fullmatch(item)) is not None:
        return f"{match[1]}\\frac{{{match[2]}}}{{{match[3]}}}"
    if (match := _REPEATING_WHOLE.fullmatch(item)) is not None:
        return match[1] + _as_fraction(match[2], match[3], match[4] or match[5])
    return item


def without_letter_x(one: str, other: str) -> tuple[str, str]:
    """Both, where only one of them has the letter x and has it for a sign, 1.5 x 10^4, with the sign in its place."""
    for text, beside in ((one, other), (other, one)):
        if (times := _TIMES_TEN.match(text)) is not None and not re.search("[xX]", beside + text[times.end() :]):
            plain = f"{times[1]} \\times {text[times.end() :]}"
            return (plain, other) if text is one else (one, plain)
    return one, other


def as_text(answer: str) -> str:
    """The answer for comparison as text: cleaned, words out of their \\text{}, without white space.

    White space between two digits stays: "1 2" is not 12.
    """
    return squeezed(clean(answer))


def squeezed(cleaned: str) -> str:
    """A cleaned answer for comparison as text: words out of their \\text{}, exponents of one digit out of their braces,
    without white space but between digits."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", _EXPONENT.sub(r"^\1", WRAPPED.sub(r"\1", cleaned)))


def whole_number(answer: str) -> str | None:
    """Canonical text of a whole number, else None: of "073", "73.0", "1{,}040", "1\\,040", "\\$73", but not of "73
    apples", "5/1", "1 2".

    Text, not `int`: nothing limits how many digits a model writes, and Python refuses to convert more than a few
    thousand.
    """
    match = _WHOLE.fullmatch(answer)
    if match is None:
        match = _WHOLE.fullmatch(together(clean(answer)))
    return None if match is None else ("-" if match[1] == "-" and match[2] != "0" else "") + match[2]


def value(cleaned: str) -> Fraction | None:
    """The number of a cleaned answer that is a decimal, also times a power of ten, a ratio of whole numbers or a mixed
    number; None for others."""
    text = together(cleaned)
    if re.search(r"\d\s+\d", text) is None:
        text = "".join(text.split())
    if len(text) > MOST_DIGITS:
        return None
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    if (scaled := _POWER_OF_TEN.fullmatch(text)) is not None:
        return Fraction(scaled[1]) * Fraction(10) ** int(scaled[2] or scaled[3])
    ratio = _RATIO.fullmatch(text)
    if ratio is None:
        return None
    whole, over, under = int(ratio[4] or 0), int(ratio[2] or ratio[5]), int(ratio[3] or ratio[6])
    # A whole number before an improper fraction is a factor, or a mistake.
    if under == 0 or (ratio[4] and not 0 <= over < under):
        return None
    return (whole + Fraction(over, under)) * (-1 if ratio[1] == "-" else 1)


def without_percent(cleaned: str) -> str:
    """The cleaned answer without the percent sign at its end, where there is one."""
    return re.sub(r"\s*\\?%$", "", cleaned.rstrip())


def together(text: str) -> str:
    """A number whose digits are grouped, by commas, white space or apostrophes, without these; other text as it is."""
    return _ungrouped(text.replace(" ", "") if _SPACED.fullmatch(text) else text)


def _ungrouped(text: str) -> str:
    return re.sub("[,'’]", "", text) if _GROUPED.fullmatch(text) else text


def _fraction(match: re.Match[str]) -> str:
    over, under = (match[place] if match[place] is not None else match[place + 1] for place in (2, 4))
    return f"\\{match[1]}{{{over}}}{{{under}}}"


def _unit(match: re.Match[str]) -> str:
    """What stands in \\text{}, with signs and exponents outside of it."""
    inner = re.sub(r"\s*\\Omega\s*", "Ω", re.sub(r"\\mu\s*", "µ", match[1]))
    signs = _BETWEEN_UNITS.split(inner)
    for place, part in enumerate(signs):
        if place % 2 == 0:
            signs[place] = f"\\text{{{part}}}" if part.strip() else ""
        elif "^" not in part:
            signs[place] = "\\cdot"
    return "".join(signs)


def _repeating(match: re.Match[str]) -> str:
    block = match[3] or match[4] or (match[5] + (match[6] or "") + (match[7] or ""))
    return _as_fraction(match[1], match[2], block)


def _as_fraction(whole: str, decimals: str, block: str) -> str:
    """\\frac{1}{6} for 0.1 and the block 6 that repeats."""
    if len(whole + decimals + block) > MOST_DIGITS:
        return f"{whole}.{decimals}({block})"
    exact = Fraction(whole + decimals) / 10 ** len(decimals) if decimals else Fraction(whole)
    exact += Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(decimals))
    return f"\\frac{{{exact.numerator}}}{{{exact.denominator}}}"


def _without_marks(text: str) -> str:
    """Without what ends a sentence, and without the backslash that is left of a "\\ " whose space was cut off."""
    text = text.strip().rstrip(_MARKS)
    return text[:-1].rstrip(_MARKS) if text.endswith("\\") and not text.endswith("\\\\") else text


def _without_bold(text: str) -> str:
    while (bold := _BOLD.fullmatch(text)) is not None:
        text = _without_marks(bold[2])
    return text
