"""Maths answers whose signs are no arithmetic: derivatives, primes, transposes, dates and ranges, values by name; and
inequalities, notations and matrices that say the same in another form."""

from collections.abc import Iterator

import pytest

from evaluation.grading import Grader
from evaluation.records import Problem

Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    """With time enough for a busy machine: what is tested is what the answers say."""
    with Grader(workers=1, maths_timeout_s=60.0) as patient:
        yield patient


def verdicts(grader: Grader, pairs: Pairs) -> dict[tuple[str, str], str]:
    items = [(Problem("1", "test", "maths", "?", gold), f"\\boxed{{{answer}}}", "stop") for gold, answer in pairs]
    return {pair: graded.verdict for pair, graded in zip(pairs, grader.grade(items), strict=True)}


SAME: dict[str, Pairs] = {
    "derivatives": [
        (r"\frac{dy}{dx}", r"\dfrac{\mathrm{d}y}{\mathrm{d}x}"), (r"\frac{dy}{dx}", "dy/dx"),
        (r"\frac{dx}{dt}=3", r"\frac{dx}{dt}=3"), (r"\frac{dx}{dt}=3", "3"), ("3", r"\frac{dx}{dt}=3"),
        (r"2\frac{dy}{dx}+1", r"1+2\frac{dy}{dx}"), (r"\frac{d}{dx}(x^2)", "2x"), ("2ax", r"\frac{d}{dx}(ax^2)"),
        (r"\frac{\partial}{\partial x}(x^2y)", "2xy"), (r"\frac{d^2y}{dx^2}", r"\frac{d^{2} y}{d x^{2}}"),
    ],
    "primes": [
        ("f'(x)", "f'(x)"), ("f'(x)", r"f^{\prime}(x)"), ("f'(x+1)", "f'(1+x)"), ("x''", r"x^{\prime\prime}"),
        ("y'=2x", "y' = x+x"), ("y'=2x", "2x"), ("2x", "f'(x)=2x"), ("f'(2)=4", "4"), ("y''+y=0", "y''=-y"),
        ("B'C'", "B'C'"), (r"\angle A'BC", r"\angle A' B C"), ("5'", "5'"), ("5'6''", "5' 6''"), ("x'+1", "1+x'"),
        ("n(n+1)y'", "n y'(n+1)"), ("(x')^2", "x'^2"), (r"45^\circ 30'", r"45^{\circ} 30'"), ("x'_1", "x_1'"),
        (r"\text{Ann's}", r"\text{Anns}"), (r"\text{O'Neil}", r"\text{O’Neil}"),
    ],
    "transposes": [
        ("A^T", r"A^{\top}"), ("A^T", r"A^\top"), ("A^T", r"A^{\mathsf{T}}"), ("A^T", r"A^{\mathrm{T}}"),
        ("A^T", r"A^\intercal"), ("A^TB", "A^{T} B"), ("A^TB+C", "C+A^TB"), ("2^T", r"2^{T+1}/2"),
        ("e^T+1", "1+e^{T}"), (r"\int_0^T t dt", r"\frac{T^2}{2}"),
    ],
}  # fmt: skip
OTHER: dict[str, Pairs] = {
    "derivatives": [
        (r"\frac{dy}{dx}", r"\frac{dx}{dy}"), (r"\frac{dy}{dx}", "0"), ("0", r"\frac{dy}{dx}"),
        (r"\frac{ds}{dt}", r"\frac{dv}{dt}"), (r"\frac{\partial u}{\partial x}", r"\frac{\partial u}{\partial y}"),
        (r"\frac{dx}{dt}=3", r"\frac{dy}{dt}=3"), (r"2\frac{dy}{dx}", r"3\frac{dy}{dx}"), ("dy/dx", "dx/dy"),
        (r"\frac{dy}{dx}=2x", r"\frac{dx}{dy}=2x"), (r"\frac{d^2y}{dx^2}", r"\frac{dy}{dx}"),
        (r"\frac{d^2y}{dx^2}", r"\frac{d^3y}{dx^3}"), (r"\frac{d^2y}{dx^2}", "0"), (r"\frac{d}{dx}y", "0"),
        (r"\frac{d}{dx}y", r"\frac{d}{dx}z"), (r"\frac{d}{dx}(xy)", "y"), (r"\frac{d}{dx}(x^2)", "2"),
        (r"\frac{d}{dx}f(x)", r"\frac{d}{dx}g(x)"), (r"\frac{da}{dx}", "0"),
    ],
    "primes": [
        ("f'(x)", "f(x)"), ("f(x)", "f'(x)"), ("f'(x)", "f''(x)"), ("f'(x)", "f'(y)"), ("y'=2x", "y=2x"),
        ("f'(x)=2x", "f(x)=2x"), ("y''+y=0", "y'+y=0"), ("y''+y=0", "y+y=0"), ("B'C'", "BC"), ("B'C'", "B'C"),
        (r"\angle A'BC", r"\angle ABC"), (r"30^\circ", "30'"), ("30'", "30"), ("30", "30'"), ("5'", "5''"),
        ("5''", "5'"), ("5'", "5"), ("x'+1", "x+1"), ("x'+1", "x''+1"), ("a'b", "ab'"), ("(x^2)'", "x^2"),
        (r"45^\circ 30'", r"45^\circ 31'"), ("AB'CD", "ABCD"), ("BAC'D", "BACD"), (r"\text{BAC'}", "BAC"),
        (r"x^{\prime}", "x"), ("x'_1", "x_1"), ("x'_1", "x_2'"),
    ],
    "transposes": [
        ("A^T B", "AB"), ("(AB)^T", "AB"), ("x^{T}", "x"), ("30^T", "30"), ("x", "x^T"), (r"A^{\top}", "A"),
        ("A^T B", "B A^T"), ("A^TB", "AB^T"), ("(AB)^T", "A^TB^T"), ("2^T", "2^t"), ("2^T", "2"), ("A^T", "A'"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_the_same_in_another_form(grader: Grader, kind: str) -> None:
    assert {pair: "correct" for pair in SAME[kind]} == verdicts(grader, SAME[kind])


@pytest.mark.parametrize("kind", OTHER)
def test_what_only_looks_like_it(grader: Grader, kind: str) -> None:
    assert {pair: "wrong" for pair in OTHER[kind]} == verdicts(grader, OTHER[kind])
