"""Maths: a number and its unit, its base; and what is no number although algebra would read one."""

import re

from evaluation.graders.notation import (
    WRAPPED,
    clean,
    number_form,
    squeezed,
    together,
    value,
    whole_number,
    without_percent,
)

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_FRACTION = r"\\frac\{\d+\}\{\d+\}"
_NUMBER = re.compile(
    rf"[-+]?\s*(?:{_DIGITS}?\s*{_FRACTION}|\d+\s+\d+\s*/\s*\d+|\d+\s*/\s*\d+|{_DIGITS})"
    r"(?:\s*\\times 10\^\{-?\d+\}|\s*\\?%)?(?![\d.,/]|\s*\\times)"
)
_CODES = {"USD": "dollar", "US": "dollar", "EUR": "euro", "GBP": "sterling", "CAD": "", "AUD": "", "INR": "rupee"}
_CODES |= {"Rs": "rupee", "RMB": "yuan", "CNY": "yuan", "JPY": "yen"}
_CODE = re.compile(rf"(?:\\text\s*\{{\s*)?({'|'.join(_CODES)})\.?\s*\}}?\s*(?=[-+.\d])")
_SIGNS = {r"\$": "dollar", r"\textdollar": "dollar", "€": "euro", r"\euro": "euro", r"\texteuro": "euro"}
_SIGNS |= {
    "£": "sterling",
    r"\pounds": "sterling",
    r"\textsterling": "sterling",
    "₹": "rupee",
    "₽": "rouble",
    "₩": "won",
}
_DOLLAR = re.compile(r"[^$]*(?<!\\)\$\s*[-+]?[\d.][^$]*")  # one that delimits no maths: $18
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{)?\s*(st|nd|rd|th)\s*\}*")
_EXPONENT = r"\s*\^\s*(?:\{\s*-?[123]\s*\}|-?[123])"
_CIRCLE = r"\s*\^\s*\\circ(?![A-Za-z])"
_MARKED = rf"\\text\s*\{{[^{{}}\\\d]*\}}(?:{_EXPONENT})?"
_TAIL = re.compile(rf"(?:{_CIRCLE})?(?:[^\W\d_]+(?:{_EXPONENT})?|['.\-/(),\s]|{_MARKED}|\\cdot\b)*")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_MARKED_TAIL = re.compile(rf"(?:(?:{_CIRCLE})?(?:\s*(?:/|\\cdot\b|\.)?\s*{_MARKED})+|{_CIRCLE}\s*[CFK]?)\s*$")
_PART = re.compile(r"\\text\s*\{([^{}]*)\}|\^\s*\{?\s*(-?\d)\s*\}?|(\^\s*\\circ)|(\s*/\s*)?([^\W\d_]+)")
_COMMAND = re.compile(r"\\(?!text)[a-z]+")
_PAIR = re.compile(r"\s+([A-Za-z]+)\s*/\s*([A-Za-z]+)")  # m/s, where one letter alone would be a variable
_PER = re.compile(r"/\s*([^\W\d_]+)")  # km/h
_WORD = re.compile(r"[^\W\d_]+")
_UNITS = """
mm millimeter millimetre 毫米 мм | cm centimeter centimetre 厘米 см | dm decimeter decimetre 分米 |
m meter metre 米 м | km kilometer kilometre 千米 公里 км | in inch inche | ft foot feet | yd yard | mi mile |
mg milligram 毫克 | g gram 克 г | kg kilogram 千克 公斤 кг | lb | pound | oz ounce | ton tonne 吨 |
ml milliliter millilitre 毫升 мл | l liter litre 升 л | gallon gal | quart qt | s sec second 秒 с |
min minute 分钟 мин | h hr hour 小时 ч | day d 天 | week wk 周 | month 月 | year yr 年 | cent ¢ |
dollar USD usd buck | euro EUR | sterling GBP | pence |
rupee Rs INR | yuan RMB 元 | circ degree deg 度 | circC celsius Celsius |
circF fahrenheit Fahrenheit | rad radian | acre | hectare ha | J joule | N newton | W watt | Hz hertz | V volt |
A amp ampere | µm μm micrometer micrometre micron | µg μg microgram | µs μs microsecond | Ω ohm | kΩ kiloohm kilohm |
MΩ megaohm megohm
"""
_CANONICAL = {alias: names.split()[0] for names in _UNITS.replace("\n", " ").split("|") for alias in names.split()}
_COMPOUND = {
    "mph": ["mi", "h"],
    "kph": ["km", "h"],
    "kmph": ["km", "h"],
    "kmh": ["km", "h"],
    "per": [],
    "a": [],
    "an": [],
}
_DIMENSION = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3}
_SHORT = re.compile(
    r"[mcdkµμ]m|[mcdk][lL]|[mkµμ]g|lbs?|ft|in|yds?|mi|oz|hrs?|min|secs?|[mk]ph|km|[ap]m|sq|cu|[kM]?Hz|kJ|kW|qt|pts?|pcs?"
)
"""Units of few letters or without vowels, which need no \\text{}; any others may be a product."""
_CHANGING = re.compile(
    r"or|and|plus|minus|least|most|not|base|remainder|squared|cubed|factorial|pi|root|sqrt|dozens?|half|halves|mod|modulo|"
    r"if|when|where|unless|except|(?-i:k)|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?|"
    r"(?:hundred|thousand|million|billion|trillion|lakh|crore)s?|tens|negative|тыс|млн|млрд|tausend|millionen|milliarden|"
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|"
    r".*(?:[万亿十半打多余或和]|千(?![克米瓦])|百(?!分)).*",
    re.IGNORECASE,
)
"""Words beside a number after which it is another number, or more than one."""
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]|[Α-Ωα-ω]|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega)\b")
_PLAIN_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\b\.?")
_CONJUNCTION = re.compile(r"\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b")
_BASE = re.compile(
    r"(?:[({]|\\text\{)?(-?[0-9][0-9A-Fa-f]*)[)}]?\s*_\s*(?:\{\s*\(?(?:\\text\{)?\s*\(?(?:base\s+)?([0-9a-z]+)\s*\)?\}*\)?\}*|([0-9]))"
)
_WITH_E = re.compile(r"(?<![\d.])(\d+)  \\times 10\^\{(\d+)\}")  # as `number_form` writes it
_NUMERAL = re.compile(r"([-+]?)\s*0*(?=[0-9A-Fa-f])([0-9A-Fa-f]+)(?:\.0*)?")
_BASES = dict(zip(("two", "three", "four", "five", "six", "seven", "eight", "nine"), "23456789", strict=True))
_BASES["ten"] = "10"


def split_unit(cleaned: str, *, plain: bool) -> tuple[str, str]:
    """A cleaned answer without its unit, and the unit as it is written; "" where there is none.

    "5 \\text{ cm}^2", "90^\\circ", "12 \\pi \\text{ cm}" have units that are marked as such, and so have "18 dollars",
    "5 cm" and 12元. With `plain`, the answer is expected to be one number, and then 5cm, 5kg and "12^{th}" have one,
    too. Nothing that may be a factor is a unit: "5x", "5m", "5 xy". Words after which the number may be another are no
    unit: "18 or more".
    """
    if plain and (ordinal := _ORDINAL.fullmatch(cleaned)) is not None:
        last = "th" if ordinal[1][-2:] in ("11", "12", "13") else ordinal[1][-1]
        if ordinal[2] == {"1": "st", "2": "nd", "3": "rd"}.get(last, "th"):
            return ordinal[1], ordinal[2]
    code = _CODE.match(cleaned)
    text = cleaned if code is None else cleaned[code.end() :]
    number = _NUMBER.match(text)
    tail = "" if number is None else text[number.end() :]
    if number is not None and _TAIL.fullmatch(tail) and (not tail.strip() or _is_unit(tail, plain=plain)):
        return number[0].strip(), tail.strip() or ("" if code is None else code[1])
    marked = _MARKED_TAIL.search(text)
    if marked is not None and _TRIGONOMETRIC.search(text) and "\\circ" in marked[0]:
        return cleaned, ""  # the angle of a function
    if marked is not None and (rest := text[: marked.start()].strip()) and not rest.endswith(("=", ",", "+", "-")):
        is_number = re.search(r"\d|\\(?:pi|infty)\b", rest) and not _VARIABLE.search(WRAPPED.sub("", rest))
        if (canonical_unit(marked[0]) is not None or is_number) and not _changes(marked[0]):
            return rest, marked[0].strip()
    return cleaned, ""


def _is_unit(tail: str, *, plain: bool) -> bool:
    within = [word for wrapped in WRAPPED.finditer(tail) for word in _WORD.findall(wrapped[1])]
    tail = re.sub(_EXPONENT, "", tail)
    circle = re.match(_CIRCLE, tail)
    beside = WRAPPED.sub(" ", tail if circle is None else tail[circle.end() :]).replace("\\cdot", " ")
    if circle is not None and beside.strip() in ("C", "F", "K"):
        return True
    if plain and (pair := _PAIR.fullmatch(tail)) is not None and {pair[1], pair[2]} <= _CANONICAL.keys():
        return True
    words = _WORD.findall(_PER.sub(lambda per: " " if per[1] in _CANONICAL else per[0], beside))
    if words and beside[0].isalpha() and not (_needs_no_space(words[0]) and (plain or not words[0].isascii())):
        return False
    if not plain and not all(map(_is_no_product, words)):
        return False
    is_marked = (circle is not None or bool(words or within)) and not beside.rstrip().endswith("-")
    return is_marked and not any(map(_CHANGING.fullmatch, words + within)) and all(map(_is_word, words))


def _is_word(word: str) -> bool:
    spelt = len(word) > 2 and re.search("[aeiou]", word, re.IGNORECASE) is not None
    return _needs_no_space(word) or (spelt and word.isascii())


def _is_no_product(word: str) -> bool:
    """Whether a word of a gold answer is none of variables: cm and eggs, but not m, xy or abc."""
    known = len(word) > 1 and (word in _CANONICAL or word in _COMPOUND)
    return known or not word.isascii() or (len(word) > 2 and re.search(".[aeiou]", word) is not None)


def _needs_no_space(word: str) -> bool:
    return _SHORT.fullmatch(word) is not None or (not word.isascii() and not re.search("[Α-Ωα-ω]", word))


def canonical_unit(unit: str) -> tuple[str, ...] | None:
    """The unit in one spelling, ("cm", "2") for \\text{square centimetres}; None where it is not known."""
    parts: list[str] = []
    power = ""
    for part in _PART.finditer(WRAPPED.sub(r" \1 ", unit).replace("\\cdot", " ")):
        word = part[5] or ""
        plain = word if word in _CANONICAL or word in _COMPOUND else word.lower()
        if part[3]:
            parts.append("circ")
        elif part[2]:
            is_divisor = len([name for name in parts if not name.isdigit()]) > 1  # m s^{-2} is m/s^2
            exponent = part[2].lstrip("-") if is_divisor else part[2]
            parts += [] if exponent == "1" and is_divisor else [exponent]
        elif word in ("C", "F") and parts[-1:] == ["circ"]:
            parts[-1] += word
        elif plain in _DIMENSION:
            power = str(_DIMENSION[plain])
        elif (compound := _COMPOUND.get(plain)) is not None:
            parts += compound
        elif (name := _CANONICAL.get(plain) or _CANONICAL.get(plain.removesuffix("s"))) is not None:
            parts += [name, power] if power else [name]
            power = ""
        else:
            return None
    if parts[:1] == ["circ"] and parts[1:] in (["circC"], ["circF"]):
        parts = parts[1:]
    parts = ["sterling"] if parts == ["pound", "sterling"] else parts
    return (*parts, power) if power else tuple(parts) or None


def known_unit(answer: str) -> tuple[str, ...] | None:
    """The unit or the currency of an answer as it is written, in one spelling; None for one that is not known."""
    for sign, name in _SIGNS.items():
        if sign in answer:
            return (name,)
    cleaned = clean(answer)
    if cleaned.endswith("%"):
        return ("percent",)
    if (code := _CODE.match(cleaned)) is not None:
        return (_CODES[code[1]],) if _CODES[code[1]] else None
    unit = canonical_unit(written) if (written := split_unit(number_form(cleaned), plain=True)[1]) else None
    return ("dollar",) if unit is None and _DOLLAR.fullmatch(answer.replace(r"\$", "")) else unit


def same_unit(gold: tuple[str, ...], answer: tuple[str, ...]) -> bool:
    """Whether two known units are one. A pound is a weight, or money."""
    return len(gold) == len(answer) and all(
        one == other or {one, other} in ({"pound", "lb"}, {"pound", "sterling"})
        for one, other in zip(gold, answer, strict=True)
    )


def contradiction(gold: str, answer: str) -> str | None:
    """Why one cleaned expression cannot be the gold one, whatever algebra says; None where it may be."""
    if _apart(answer) and not _apart(gold):
        return "digits with white space between them are no number"
    if base_of(answer) not in (base_of(gold), None if base_of(gold) is not None else "10"):
        return "in another base"
    number = _NUMBER.match(answer)
    if number is not None and value(without_percent(gold)) is not None and _changes(answer[number.end() :]):
        return "words after which it is another number"
    return None


def _changes(tail: str) -> bool:
    """Whether there are words in what stands beside a number after which it is another."""
    return any(map(_CHANGING.fullmatch, _WORD.findall(WRAPPED.sub(r" \1 ", _COMMAND.sub(" ", tail)))))


def contradicts_itself(cleaned: str) -> bool:
    """Whether it is an equation between numbers that differ by more than what a rounded value may."""
    sides = re.split(r"=|\\approx\b", cleaned)
    numbers = [number for side in sides if (number := value(side.strip())) is not None]
    return len(numbers) > 1 and max(numbers) - min(numbers) > max(map(abs, numbers)) / 100


def _apart(cleaned: str) -> bool:
    """Whether nothing stands between two numbers but white space and words, as in "1 2" or "3 feet 6 inches"."""
    text = _PLAIN_WORD.sub(" ", WRAPPED.sub(" ", _CONJUNCTION.sub(",", cleaned)))
    two_numbers = re.fullmatch(r"[-+\d.,\s]+", text) is not None and re.search(r"\d\s+\d", text) is not None
    return two_numbers and whole_number(text) is None and value(text) is None


def without_base(gold: str, answer: str) -> tuple[str, str]:
    """Both without the base that a cleaned gold answer is written in, 2516_8, with digits above nine as capitals; the
    answer may have left it out. Ten is the base of a gold answer that names none."""
    one, other = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    digits = gold if one is None else one[1], answer if other is None else other[1]
    return digits if one is None else (digits[0].upper(), digits[1])


def same_numeral(gold: str, answer: str) -> bool | None:
    """Whether an answer has the digits of a gold one in a base other than ten, grouped or not, after zeros or not, and
    E where `number_form` took it for a power of ten; None where the gold answer is in no such base."""
    if base_of(gold) in (None, "10"):
        return None
    one, other = map(_digits, without_base(gold, answer))
    return one == other


def _digits(text: str) -> str:
    plain = together(_WITH_E.sub(r"\1E\2", WRAPPED.sub(r"\1", text).strip()))
    number = _NUMERAL.fullmatch(plain)
    return squeezed(plain) if number is None else number[1].replace("+", "") + number[2].upper()


def base_of(cleaned: str) -> str | None:
    """The base that a cleaned numeral is written in, "8" of 2516_8; None where it names none."""
    number = _BASE.fullmatch(cleaned)
    return None if number is None else _BASES.get(number[2], number[2]) if number[2] else number[3]
