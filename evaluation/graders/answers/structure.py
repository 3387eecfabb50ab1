"""Maths: an answer as a tree of lists, tuples, sets, intervals, equations, matrices, times and ratios, whose leaves are
the expressions that algebra compares."""

import re
from collections.abc import Callable
from dataclasses import replace

from evaluation.graders.answers.nodes import (
    Clock,
    Dots,
    Equation,
    Group,
    Leaf,
    Node,
    Piece,
    Ratio,
    Region,
    Residue,
    Words,
    both_signs,
    closing,
    split,
)
from evaluation.graders.answers.ranges import date_or_range, without_ranges
from evaluation.graders.answers.regions import VARIABLE, as_region, comparison, flat, joined, united
from evaluation.graders.answers.unknowns import DERIVATIVE
from evaluation.graders.notation import WRAPPED, number_form, squeezed, value

_DEEPEST = 8  # brackets within brackets; no answer has as many
_UNGROUPED = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,]*\d)")
_WITH_UNIT = re.compile(
    r"((?:[A-Z][A-Za-z]{1,2}\.?\s*)?[-+]?\s*\d{1,3}(?:,\d{3})+(?:\.\d+)?)"
    r"((?:\s*(?:[^\W\d_]{2,}|\\text\s*\{[^{}\d,;]*\})[^\d,]*)?)"
)
_NAME = re.compile(
    r"(?!\d)(?!.*\\(?:frac|sqrt|sin|cos|tan|cot|sec|csc|log|ln|cdot|times|pm|mp|text\s*\{\s*(?:or|and)|binom|int|sum))"
    r"[^-+*/^=<>\\\d]*(?:\\[A-Za-z]+[^-+*/^=<>\\\d]*|(?<=[A-Za-z_{(,])\d+[^-+*/^=<>\\\d]*)*"
)
_CLOCK = re.compile(
    r"(\d{1,2})\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?(?:h\b)?\s*(?:(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\.?\s*\}?)?\.?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(\d{1,2})\s*(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\.?\s*\}?\.?", re.IGNORECASE)
_NAMED_HOUR = re.compile(
    r"(?:12(?:\s*:\s*00)?\s*)?(?:\\text\s*\{)?\s*(?:12(?:\s*:\s*00)?\s+)?(noon|midnight)\s*\}?\.?", re.IGNORECASE
)
_MODULO = re.compile(
    r"(?P<value>.*?)[\s,]*\(?\s*(?:\\[pb]?mod(?![A-Za-z])|\\text\s*\{\s*\(?\s*mod\s*\}|\bmod\b)"
    r"\s*\{?\s*(?P<modulus>\w+)\s*\}?\s*\)?",
    re.DOTALL,
)
_ENVIRONMENT = re.compile(
    r"(?P<open>\\?[{(\[|]?)\s*\\begin\{(?P<name>[pbvBV]?(?:small)?matrix|array|cases|"
    r"align(?:ed)?|gather(?:ed)?|split)\*?\}"
    r"(?:\s*\{[lcr| ]*\})?(?P<body>.*)\\end\{(?P=name)\*?\}\s*(?P<close>\\?[})\]|]?)",
    re.DOTALL,
)
_MULTIPLE = re.compile(
    r"(?P<factor>-|[-+]?\s*(?:\d+(?:\.\d+)?(?:\s*/\s*\d+)?|\\frac\{[^{}]*\}\{[^{}]*\}|\\sqrt\{[^{}]*\}|[A-Za-z]))"
    r"\s*(?:\\cdot|\\times)?\s*(?P<matrix>[(\[]?\s*\\begin\{.*)",
    re.DOTALL,
)
_BUILDER = re.compile(
    r"\\\{\s*(?P<variable>[^\\{}|:,]+?)\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid|\\vert|\||:)(?P<condition>.*)\\\}",
    re.DOTALL,
)
_MEMBER = re.compile(rf"(?P<variable>{VARIABLE.pattern}|\([A-Za-z, ]+\))\s*\\in\b\s*(?P<set>.*)", re.DOTALL)
_REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\text\s*\{\s*all real numbers\s*\}|all real numbers", re.IGNORECASE)
_REVERSED = re.compile(r"([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])")
_PLAIN_WORDS = re.compile(
    r"(?=[A-Za-z]*[^\W\d_]{1,}[aeiouAEIOU])[^\W\d_]{3,}(?:[\s,.'-]+[^\W\d_]+)*|yes|no|odd|all|any|(?:jan|feb|mar|apr|may|june?|july?|aug|sep|oct|nov|dec)[a-z]*\.?\s+\d{1,4}(?:,\s*\d{4})?",
    re.IGNORECASE,
)
_FUNCTIONS = (
    "arc(?:sin|cos|tan|cot)|(?:sin|cos|tan|cot|sec)h?|log|exp|max|min|gcd|lim|mod|det|dim|deg|ker|sup|sqrt|frac|infty|"
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|rho|sigma|tau|omega"
)
# Words of which the first one alone could be a product: a circle, no real roots, Mr. Jones; but not x y, a cos b.
_PHRASE = re.compile(
    rf"(?=(?:.*[\s.'’])?(?!(?:{_FUNCTIONS})\b)[^\W\d_]+[aeiou](?<=[^\W\d_]{{2}})[^\W\d_]*\b(?<=[^\W\d_]{{3}}))"
    r"[^\W\d_]+(?:(?:[\s.'’]+|(?<=[^\W\d_]{3})-(?=[^\W\d_]{3}))[^\W\d_]+)+|"
    r"[^\W\d_]-(?:axis|axes|coordinates?|intercepts?|values?)",
    re.IGNORECASE | re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+(?:(?:[\s.-]+|(?<=[^\W\d_]{2})['’])[^\W\d_]+)*\.?")
_SPOKEN = re.compile(r"(?!.*[aeiou])(?=.{3})[^\W\d_]*[b-df-hj-np-tv-wz]y[^\W\d_]*", re.IGNORECASE)  # try, Lynn
_PUNCTUATION = re.compile(r"\A\s*(?:an?|the)\s+(?=\w{3})|[^\w+'-]+", re.IGNORECASE)
_APOSTROPHE = re.compile(r"(?<![A-Z'])'+|'+(?=[a-z])")  # the prime of a point stays: BAC'D'
_PREDICATE = re.compile(r"(\\text\s*\{\s*)(?:is|are)\s+")


def parse(cleaned: str, depth: int = 0) -> Node:
    """The tree of a cleaned answer. Nothing fails: what has no structure, or too deep a one, is a leaf."""
    text = _outside(cleaned.strip())
    if depth > _DEEPEST:
        return Leaf(text)

    def part(within: str) -> Node:
        return parse(within, depth + 1)

    if re.search(r"(?:^|[^\w)\]}])\][^\[\]()]*[,;][^\[\]()]*[\[\]]|\[[^\[\]()]*[,;][^\[\]()]*\[", text):
        text = _REVERSED.sub(_forwards, text)  # ]1,2[ is (1,2)
    if text == "\\ldots":
        return Dots()
    if _REALS.fullmatch(text):
        return Region((Piece("-\\infty", "\\infty", False, False),))
    if text == "\\emptyset" or re.fullmatch(r"\\\{\s*\\\}", text):
        return Group("set", ())
    if (environment := _ENVIRONMENT.fullmatch(text)) is not None:
        return _environment(environment, part)
    if (multiple := _MULTIPLE.fullmatch(text)) is not None:
        matrix = part(multiple["matrix"])
        if isinstance(matrix, Group) and (scaled := _scaled(multiple["factor"], matrix)) is not None:
            return scaled
    if (residue := _MODULO.fullmatch(text)) is not None and residue["value"]:
        values = re.sub(r"\\equiv", "=", residue["value"])
        return Residue(part(values), residue["modulus"])
    items = _split_list(text)
    if len(items) > 1:
        return joined([(joint, part(item)) for joint, item in items])
    if (region := united(text, part)) is not None:
        return region
    if (builder := _BUILDER.fullmatch(text)) is not None and isinstance(node := part(builder["condition"]), Region):
        return node
    if (compared := comparison(text)) is not None:
        return compared
    if (equation := _equation(text, part)) is not None:
        return equation
    if (member := _MEMBER.fullmatch(text)) is not None:
        node = part(member["set"])
        is_interval = isinstance(node, Region) or (isinstance(node, Group) and node.kind == "tuple")
        region = as_region(node) if is_interval else None
        return node if region is None else replace(region, variable=squeezed(member["variable"]))
    if "\\pm" in text or "\\mp" in text:
        return Group("list", tuple(map(part, both_signs(text))))
    if (group := _group(text, part)) is not None:
        return group
    return _one(text)


def _one(text: str) -> Node:
    if (clock := _CLOCK.fullmatch(text)) is not None and int(clock[1]) < 25 and int(clock[2]) < 60:
        return _clock(int(clock[1]), int(clock[2]), int(clock[3] or 0), (clock[4] or "").lower())
    if (word := _NAMED_HOUR.fullmatch(text)) is not None:
        return Clock(12 * 3600, "p") if word[1].lower() == "noon" else Clock(0, "a" if "12" in text else "")
    if (hour := _HOUR.fullmatch(text)) is not None and 0 < int(hour[1]) < 13:
        return _clock(int(hour[1]), 0, 0, hour[2].lower())
    if len(parts := [part for _, part in split(text, {":"})]) > 1 and all(part.strip() for part in parts):
        return Ratio(tuple(number_form(part) for part in parts))
    if (dashed := date_or_range(text)) is not None:
        return dashed
    without = re.sub(r"\\text\s*\{[^{}]*\}", "", text)
    if (
        (without != text and not re.search(r"[\w\\]", without))
        or _PLAIN_WORDS.fullmatch(text)
        or _PHRASE.fullmatch(text)
    ):
        plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
        if len(several := [word.strip() for word in plain.split(",") if word.strip()]) > 1:
            named = [words(word) for word in several]
            letters = [word.text for word in named]
            # Which of the statements A to E hold is a set; a list of words in no alphabetical order is one in order.
            is_set = all(len(letter) == 1 for letter in letters) and letters == sorted(letters)
            return Group("list" if is_set else "row", tuple(named))
        return words(plain)
    return Leaf(number_form(text))


def as_list(node: Node) -> Node:
    """A number with commas in it, 12,345, as the list that it may be as well."""
    parts = node.text.split(",") if isinstance(node, Leaf) and value(node.text) is not None else []
    return Group("list", tuple(map(Leaf, parts))) if len(parts) > 1 else node


def words(text: str) -> Words:
    """Words without punctuation, white space, and the article before them."""
    unquoted = text.strip().strip("'") if text.lstrip().startswith("'") else text
    written = _APOSTROPHE.sub("", _PUNCTUATION.sub("", unquoted.replace("’", "'"))) or text.strip()
    return Words(written.casefold(), written)


def _is_plain(text: str) -> bool:
    """Whether a text without \\text{} is words all the same."""
    return _PLAIN_WORDS.fullmatch(text) is not None or _PHRASE.fullmatch(text) is not None


def same_spoken(gold: str, answer: str) -> bool:
    """Whether two expressions are one word that could be a product, but can be spoken: Lynn, LYNN; not xyz, XYZ."""
    return _SPOKEN.fullmatch(gold) is not None and gold.casefold() == answer.casefold()


def same_words(gold: str, answer: str) -> bool:
    """Whether two cleaned answers that are nothing but letters are the same words: Lynn and \\text{Lynn}, AB and
    \\text{AB}. Capitals count where letters may be a product: ab is not \\text{AB}."""
    one, other = (WRAPPED.sub(r"\1", text).strip() for text in (gold, answer))
    if not (_LETTERS.fullmatch(one) and _LETTERS.fullmatch(other)):
        return False
    left, right = words(one), words(other)
    is_spoken = "\\text" in gold or _is_plain(one) or _SPOKEN.fullmatch(one)
    return left.text == right.text if is_spoken else left.written == right.written


def _clock(hours: int, minutes: int, seconds: int, half: str) -> Clock:
    if half and hours <= 12:
        hours = hours % 12 + (12 if half == "p" else 0)
    return Clock(hours * 3600 + minutes * 60 + seconds, half or ("p" if hours > 12 else ""))


def _outside(text: str) -> str:
    """Without braces around the whole."""
    while text.startswith("{") and text.endswith("}") and closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


_AND = {"and", "\\land", "und", "et", "和"}
_OR = {"or", "\\lor", "oder", "ou", "或"}


def _split_list(text: str) -> list[tuple[str, str]]:
    if value(text) is not None:  # 1,234
        return [("", text)]
    if (counted := _WITH_UNIT.fullmatch(text)) is not None:  # 1,234 dollars, USD 1,234
        text = counted[1].replace(",", "") + counted[2]
    if re.search(r",\s|;|\b(?:and|or)\b", text):
        text = _UNGROUPED.sub(lambda number: number[0].replace(",", ""), text)
    parts = split(text, {",", ";"} | _AND | _OR)
    joints = [joint for joint, part in parts[1:] if not (joint in ",;" and not part)]
    kind = "or" if any(j in _OR for j in joints) else "and" if any(j in _AND for j in joints) else ","
    return [(kind, part) for _, part in parts if part]


def _forwards(match: re.Match[str]) -> str:
    return f"{'(' if match[1] == ']' else '['}{match[2]}{')' if match[3] == '[' else ']'}"


def _environment(match: re.Match[str], part: Callable[[str], Node]) -> Node:
    name, body = match["name"], match["body"]
    rows = [row.strip() for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?", body) if row.strip()]
    if not rows or re.search(r"\\begin\b", body):
        return Leaf(match[0])
    is_list = not (name.endswith("matrix") or name == "array") or match["open"] == "\\{"
    if is_list and "&" not in body.replace("&=", "=").replace("& =", "="):
        nodes = [part(row.replace("&", "").rstrip(",;. ")) for row in rows]
        return nodes[0] if len(nodes) == 1 else joined([(",", node) for node in nodes])
    cells = [without_ranges(tuple(part(_condition(cell)) for cell in row.split("&"))) for row in rows]
    grid = tuple(Group("row", row) for row in cells)
    if is_list:
        return Group("cases", grid)
    return Leaf(match[0]) if "|" in match["open"] or name[0] in "vV" else Group("matrix", grid)


def _scaled(factor: str, matrix: Group) -> Group | None:
    """A number times a matrix of expressions."""
    rows = [row.items for row in matrix.items if isinstance(row, Group)]
    if matrix.kind != "matrix" or not all(isinstance(cell, Leaf) and cell.text for row in rows for cell in row):
        return None
    factor = f"({'-1' if factor == '-' else factor.removeprefix('+')})"
    cells = [tuple(Leaf(f"{factor} \\cdot ({cell.text})") for cell in row if isinstance(cell, Leaf)) for row in rows]
    return Group("matrix", tuple(Group("row", row) for row in cells))


def _condition(cell: str) -> str:
    return re.sub(
        r"\\text\s*\{\s*(?:,?\s*(?:if|when|for|where|,))*\s*\}|^\s*(?:if|when|for)\b", "", _PREDICATE.sub(r"\1", cell)
    ).strip(" ,;.")


def _group(text: str, part: Callable[[str], Node]) -> Group | None:
    """What a pair of brackets around the whole with commas in it is."""
    opening = re.match(r"[(\[]|\\\{|\\langle(?![A-Za-z])", text)
    end = re.search(r"(?:[)\]]|\\\}|\\rangle)$", text)
    if opening is None or end is None or closing(text) != end.start():
        return None
    inner = text[opening.end() : end.start()]
    parts = [item for _, item in split(inner, {",", ";"})]
    if opening[0] == "\\{":
        within = map(part, filter(None, parts))
        return Group("set", tuple(flat(within))) if end[0] == "\\}" else None
    if len(parts) < 2 or not all(parts):
        return None
    brackets = "()" if opening[0] == "\\langle" else opening[0] + end[0]
    return Group("tuple", without_ranges(tuple(map(part, parts))), brackets)


def _equation(text: str, part: Callable[[str], Node]) -> Equation | None:
    sides = [side for _, side in split(text.replace("\\approx", "=").replace("\\Rightarrow", "="), {"="})]
    if len(sides) < 2:
        return None
    sides = sides[1:] if len(sides) > 2 and not sides[0] else sides
    left, right = sides[0], sides[-1]
    if "\\approx" in text:  # the exact value stands before it
        right = re.split(r"\\approx", text)[0].split("=")[-1].strip() or right
        left = left if "=" in text else ""
    if not _is_name(left) and len(sides) == 2 and VARIABLE.fullmatch(right):
        left, right = right, left
    names = [_squeezed_name(left)] if _is_name(left) else []
    return Equation(left, part(right), text, names[0] if names else None)


def _is_name(side: str) -> bool:
    return not side or _NAME.fullmatch(side) is not None or DERIVATIVE.fullmatch(side) is not None


def _squeezed_name(side: str) -> str:
    return squeezed(side).replace("{", "").replace("}", "")
