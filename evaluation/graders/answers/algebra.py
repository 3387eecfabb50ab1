"""Maths: expressions in LaTeX, compared by algebra: latex2sympy2_extended reads them, math-verify and sympy compare."""

import re

from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify import verify
from sympy import Basic, Derivative, Expr, Float, I, MatrixBase, Symbol, simplify

from evaluation.graders.answers.equality import RELATIVE, ROUNDED
from evaluation.graders.answers.unknowns import with_symbols

_FORM = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_SYMBOLS = ConversionConfig(lowercase_symbols=False)
_TRIGONOMETRIC = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|\\operatorname")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\imath\b|\\mathbb\s*\{?C")
_IN_DEGREES = re.compile(
    r"(?P<angle>\\frac\{[^{}]*\}\{[^{}]*\}|\d+(?:\.\d+)?|\([^()]*\)|\\?[A-Za-z]+)\s*\^\s*\\circ(?![A-Za-z])"
)
_WITHOUT_BRACES = re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^(?:\{[^{}]*\}|\d))?)\s*(?=\{\\frac)")
_NUMBER_WITH_INDEX = re.compile(r"(?<![A-Za-z_\d])\d+\s*_|\\(?:sin|cos|tan)\s*_")
_CONSTANTS = frozenset("abckmn")  # letters that do not depend on what a derivative is taken by
_DIGITS = 1000  # to which the difference of two exact numbers is computed, before they count as equal


class UnreadableGold(Exception):
    """The gold answer is no expression."""


class Sympy:
    """The `Algebra` of `equality.Equality`. `unread` says whether the last answer was no expression."""

    def __init__(self) -> None:
        self.unread = False

    def equal(self, gold: str, answer: str) -> bool:
        """Whether two expressions are equal. Raises `UnreadableGold`."""
        self.unread = False
        is_real = None if _IMAGINARY.search(gold + " " + answer) else True
        one, other = _read(gold, is_real), _read(answer, is_real)
        if one is None:
            raise UnreadableGold(gold)
        if other is None:
            self.unread = True
            return False
        return _equal(one, other)

    def same_relation(self, gold: tuple[str, str], answer: tuple[str, str]) -> int:
        """1 where the difference of the second pair is a positive multiple of that of the first, -1 where it is a
        negative one, else 0."""
        sides = [side for text in (*gold, *answer) if isinstance(side := _read(text, True), Expr)]
        if len(sides) < 4:
            return 0
        left, right, other_left, other_right = sides
        quotient = simplify((other_left - other_right) / (left - right))
        if not quotient.is_number or not quotient.is_comparable or quotient.is_zero:
            return 0
        return 1 if quotient > 0 else -1


def _read(text: str, is_real: bool | None) -> Basic | MatrixBase | None:
    """The expression that a text is; None where it is none, or where the parser would leave a part out."""
    if "\\ldots" in text or _NUMBER_WITH_INDEX.search(text):
        return None
    is_partial = "\\partial" in text
    text = with_symbols(text)
    if _TRIGONOMETRIC.search(text):
        text = _IN_DEGREES.sub(r"{\\frac{\\pi \\cdot \g<angle>}{180}}", text)
        text = _WITHOUT_BRACES.sub(r"\1 ", text)
    text = normalize_latex(text.replace("^\\circ", ""), _FORM).strip()
    if not text:
        return None
    try:
        read = latex2sympy(text, is_real=is_real, normalization_config=None, conversion_config=_SYMBOLS)
        read = _unevaluated(read, is_partial=is_partial)
        letters = [] if is_real else [one for one in read.free_symbols if one.name in ("i", "imath")]
        return read.subs(dict.fromkeys(letters, I)) if letters else read
    except Exception as error:  # bare ones of the parser, for what it cannot read
        if isinstance(error, MemoryError):
            raise
        return None


def _unevaluated(read: Basic, *, is_partial: bool) -> Basic:
    """An expression in which symbols stand for the derivatives of unknown functions: of y by x, but not of x^2 by x.
    Letters other than those of constants may depend on x, unless the derivative is partial."""
    symbols: dict[Basic, Basic] = {}
    for derivative in read.atoms(Derivative):
        by, of = set(derivative.variables), derivative.expr
        others = {symbol.name for symbol in of.free_symbols - by}
        if not of.is_number and (not by <= of.free_symbols or not (is_partial or others <= _CONSTANTS)):
            symbols[derivative] = Symbol(f"unknown {derivative}", real=True)
    return read.xreplace(symbols) if symbols else read


def _equal(gold: Basic | MatrixBase, answer: Basic | MatrixBase) -> bool:
    if isinstance(gold, Symbol) and isinstance(answer, Symbol):
        return bool(gold == answer)  # math-verify does not tell capitals apart
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.is_Matrix or answer.is_Matrix:
        return bool(verify([gold], [answer], timeout_seconds=None))
    exact = not (gold.has(Float) or answer.has(Float))
    if not (gold.is_number and answer.is_number):
        # math-verify drops what is small beside the rest; exact expressions are compared exactly.
        same = simplify(gold - answer).is_zero if exact else verify([gold], [answer], timeout_seconds=None)
        return bool(same)
    gold, answer = gold.doit(), answer.doit()
    if gold == answer:
        return True
    if not (gold.is_finite is not False and answer.is_finite is not False):
        return False
    difference = gold - answer
    if exact:
        return _is_zero(difference)
    left, right = gold.evalf(30), answer.evalf(30)
    size = abs(difference).evalf(30)
    if not size.is_comparable:
        return False
    same = round(left, ROUNDED) == round(right, ROUNDED)
    return bool(same and size <= max(abs(left), abs(right)) * float(RELATIVE))


def _is_zero(difference: Expr) -> bool:
    """Whether an exact number is zero, or cannot be told from it by a thousand digits."""
    if difference.is_Rational:
        return bool(difference == 0)
    number = difference.evalf(15, maxn=_DIGITS)
    if number == 0:
        return True
    parts = number.as_real_imag()
    if not all(part.is_Number for part in parts):
        return bool(simplify(difference).is_zero)
    # A part without one significant digit.
    return all(part == 0 or (isinstance(part, Float) and part._prec == 1) for part in parts)
