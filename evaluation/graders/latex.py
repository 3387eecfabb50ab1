r"""LaTeX that says how an answer looks: fonts, colours, sizes, spacing. One list of it, for maths and for choices, and
one name for each command that has several."""

import re

_TEXT = (
    "text textbf textit textsl textsc textsf texttt textrm textup textmd textnormal textsuperscript emph mbox hbox "
    "mathrm"
)
TEXT = frozenset(_TEXT.split())
"""Commands whose argument is words; all are written \\text."""
_FONTS = (
    "boldsymbol bm pmb mathbf mathit mathsf mathtt mathnormal symbf symbfit underline uline underbar ensuremath boxed "
    "fbox framebox bold uuline uwave hl mathbfit mathcal "
    "mathop mathord mathrel mathbin mathopen mathclose mathinner smash mathstrut bf rm it sf tt sl sc em "
    "bfseries itshape rmfamily sffamily ttfamily upshape mdseries boldmath unboldmath displaystyle textstyle "
    "scriptstyle scriptscriptstyle tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge limits "
    "nolimits left right middle"
)
FONTS = frozenset(_FONTS.split()) | {
    f"{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r", "m")
}
"""Commands that are left out, but not what they stand before."""
COLOURS = {"textcolor": 1, "color": 1, "colorbox": 1, "fcolorbox": 2, "hspace": 1, "vspace": 1, "phantom": 1}
COLOURS |= {"hphantom": 1, "vphantom": 1, "label": 1, "tag": 1, "cellcolor": 1, "mspace": 1, "fontsize": 2}
COLOURS |= {"style": 1, "class": 1, "cssId": 1, "enclose": 1, "bbox": 0, "makebox": 0}
"""Commands that are left out with so many arguments, but not what follows these."""
COMMAND = rf"\\(?:{'|'.join(sorted(TEXT | FONTS))})(?![A-Za-z])\s*"
"""A pattern for one command of words or of fonts, and the space after it."""
_SPACING = "quad qquad space enspace thinspace medspace thickspace nobreakspace hfill hskip , ; : > [ ] ( )"
_SPACES = frozenset(_SPACING.split()) | {" ", "\n", "\t"}
_NAMES = {
    r"\frac": "dfrac tfrac cfrac nicefrac sfrac flatfrac xfrac",
    r"\binom": "dbinom tbinom",
    r"\le": "leq leqslant leqq",
    r"\ge": "geq geqslant geqq",
    r"\ne": "neq",
    "<": "lt",
    ">": "gt",
    r"\ldots": "dots cdots hdots dotsc dotsb dotsm dotsi dotso vdots ddots mathellipsis textellipsis",
    r"\emptyset": "varnothing",
    r"^\circ": "degree textdegree",
    r"\infty": "infin",
    r"\{": "lbrace",
    r"\}": "rbrace",
    "[": "lbrack",
    "]": "rbrack",
    "(": "lparen lgroup",
    ")": "rparen rgroup",
    "|": "vert lvert rvert",
    r"\|": "Vert lVert rVert",
    ":": "colon",
    r"\lor": "vee",
    r"\land": "wedge",
    r"\setminus": "backslash smallsetminus",
    r"\to": "rightarrow longrightarrow",
    r"\cdot": "centerdot bullet",
    "-": "textminus",
    r"\%": "percent",
    "": "! therefore checkmark "
    "protect relax strut noindent centering mathstrut hline null / pounds euro texteuro textdollar dollar yen "
    "textsterling",
}
_CALLED = {name: canonical for canonical, names in _NAMES.items() for name in names.split()}
_TOKEN = re.compile(r"\\(?:([A-Za-z]+)\*?|(.))|([{}^_])|\s+|.", re.DOTALL)
_OPENING = re.compile(r"\s*\{")
_PRIME = re.compile(r"\^\s*(?:\{(?P<several>(?:\s*(?:\\prime(?![A-Za-z])|'))+)\s*\}|\\prime(?![A-Za-z]))")
_T = r"T|\\(?:top|intercal)(?![A-Za-z])|\\text\s*\{\s*T\s*\}"
_TRANSPOSE = re.compile(rf"\^\s*(?:{_T}|\{{\s*(?:{_T})\s*\}})")
_MINUS = re.compile(r"\^-(\d+|[A-Za-z])")
_FOREIGN = {
    "tg": r"\tan",
    "ctg": r"\cot",
    "cotg": r"\cot",
    "arctg": r"\arctan",
    "arcctg": r"\arccot",
    "lg": r"\log_{10}",
}
_FUNCTION = re.compile(
    rf"\\(?:operatorname\*?\s*\{{\s*(?P<set>{'|'.join(_FOREIGN)})\s*\}}|(?P<name>{'|'.join(_FOREIGN)})(?![A-Za-z]))"
)
_OPTION = re.compile(r"\s*\[[^\]]*\]")


def without_markup(text: str) -> str:
    r"""The text without fonts, colours, sizes of brackets and spacing, with one name for each command, and without the
    braces that only group.

    \textcolor{red}{\bigl(\dfrac12\bigr)} is (\frac12), and all words are in \text{}. Linear in the text's length.
    """
    parts: list[str] = []
    kept: list[bool] = []  # for each open brace whether it stays
    takes_argument = False  # whether a brace that comes next is the argument of what stands before it
    missing = 0  # how many arguments a fraction still lacks
    place = 0
    while (token := _TOKEN.match(text, place)) is not None:
        place = token.end()
        name, part = token[1] or token[2], token[0]
        if name is not None and (name in FONTS or name in COLOURS):
            if name in ("bbox", "framebox", "makebox") and (option := _OPTION.match(text, place)) is not None:
                place = option.end()
            for _ in range(COLOURS.get(name, 0)):
                place = _after_argument(text, place)
            if name in ("left", "right", "middle") and text[place : place + 1] == ".":
                place += 1
            if parts and parts[-1][-1:].isalpha() and text[place : place + 1].isalpha():
                parts.append(" ")
        elif name is not None and name in _SPACES:
            parts.append(" ")
        elif name is not None:
            part = r"\text" if name in TEXT else _CALLED.get(name, part[:-1] if part.endswith("*") else part)
            if part == r"\text" and parts[-2:] == [r"\text", "{"]:
                continue
            if part:
                parts.append(part)
                takes_argument = part[0] == "\\" and part[1:].isalpha()
                missing = 2 if part in (r"\frac", r"\binom") else 0
                if (takes_argument and text[place : place + 1].isalpha()) or part[:1] == "^":
                    parts.append(" ")
            elif name == "!":
                while text[place : place + 1].isspace():
                    place += 1
        elif part == "{":
            kept.append(takes_argument)
            parts.append(part if takes_argument else "")
            takes_argument = False
        elif part == "}":
            # What follows an argument may be another one; what follows a mere group is none.
            takes_argument = kept.pop() if kept else True
            parts.append(part if takes_argument else "")
        else:
            parts.append(part)
            missing -= missing > 0 and not part.isspace()  # \frac1{12}
            takes_argument = part in ("^", "_") or missing > 0 or (takes_argument and part.isspace())
            if part == "]":  # \sqrt[3]{2}
                takes_argument = True
    return "".join(parts)


def with_usual_names(text: str) -> str:
    r"""LaTeX with \tan for \tg, \log_{10} for \lg, and the like."""
    return _FUNCTION.sub(lambda name: _FOREIGN[name["set"] or name["name"]] + " ", text)


def with_plain_exponents(text: str) -> str:
    r"""Text without markup in which x^{\prime} is x', A^{\top} and A^T are A^{T}, and 2^-1 is 2^{-1}."""
    text = _PRIME.sub(lambda prime: "'" * max(1, (prime["several"] or "").replace("\\prime", "'").count("'")), text)
    return _MINUS.sub(r"^{-\1}", _TRANSPOSE.sub("^{T}", text))


def _after_argument(text: str, place: int) -> int:
    """Where the argument at a place ends, with an option before it: [rgb]{1,0,0}."""
    option = _OPTION.match(text, place)
    place = place if option is None else option.end()
    opening = _OPENING.match(text, place)
    if opening is None:
        return place
    depth, place = 1, opening.end()
    while depth and place < len(text):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        place += 1
    return place
