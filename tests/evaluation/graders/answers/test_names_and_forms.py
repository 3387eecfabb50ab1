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
    "dates and ranges": [
        ("2024-05-03", "2024-05-03"), ("2024-05-03", r"\text{2024/5/3}"), ("5/1/2024", "05/01/2024"),
        ("1999-2003", "1999–2003"), ("12-15", "12--15"), ("12-15", "12 - 15"), (r"\text{12-15}", "12-15"),
        ("3-5 years", r"\text{3-5 years}"), ("5", "7-2"), ("7-2", "5"), (r"5-3\text{ cm}", r"2\text{ cm}"),
        ("3-2", "3-2"), ("5-x", "-x+5"), ("3-5x", "-5x+3"), (r"\frac12-\frac13", r"\frac16"), ("(3-5,1)", "(-2,1)"),
        ("12-15, 20-25", "20-25, 12-15"), ("8", "8/1"),
        (r"5-10\%", r"5\%-10\%"), (r"20^\circ-30^\circ", r"20-30^\circ"), (r"10-5\%", r"10-5\%"),
    ],
    "values by name": [
        ("x=1, y=2", "1,2"), ("x=1, y=2", "(1,2)"), ("x=1, y=2", "y=2, x=1"), ("a=3, b=5, c=7", "3,5,7"),
        ("y=2, x=1", "(1,2)"), ("y=2, x=1", "2,1"), ("2,1", "1,2"), ("x=1, x=2", "2,1"),
        ("2,1", "p=1, q=2"), ("x_1=1, x_2=2", "2,1"),
    ],
    "inequalities": [
        ("x<2", "2x<4"), ("x<2", "-x>-2"), ("x<2", "x-2<0"), ("x+y<3", "y<3-x"), ("y<3-x", "x+y<3"),
        ("y<3-x", "x<3-y"), (r"y\ge 2x", r"y-2x\ge0"), (r"x \ge 3", r"-x \le -3"), (r"(3,\infty)", "2x>6"),
        ("2x>6", r"(3,\infty)"), ("2x>6", "x>3"), (r"x\ne 2", r"x-2\ne0"), (r"x\ne 2", r"2-x\ne0"),
        ("1<x<3", "2<2x<6"), ("1<x<3", "-3<-x<-1"), (r"(-\infty,3]", r"2x\le 6"), (r"[1,3)", r"2\le 2x<6"),
        (r"y \le x", r"x \ge y"), ("x>e", r"(e,\infty)"), (r"(2,\infty)", r"\frac{x}{2}>1"),
    ],
    "notations": [
        (r"\lg 2", r"\log_{10} 2"), (r"\lg 2", r"\frac{\ln 2}{\ln 10}"), (r"\tg x", r"\tan x"),
        (r"\operatorname{tg} x", r"\tan x"), (r"\ctg x", r"\cot x"), (r"2^-1", "1/2"), ("x^-2", r"\frac{1}{x^2}"),
        (r"\langle1,2\rangle", "(1,2)"), ("(1,2)", r"\langle1,2\rangle"), (r"\{1,2\}", r"\{1,2,2\}"),
        (r"\{1,2,2\}", r"\{2,1\}"), ("1,2,2", r"\{2,1,2\}"), ("3", r"\therefore 3"), (r"\therefore 3", "3"),
        ("3", r"3\,\checkmark"),
    ],
    "multiples of matrices": [
        (r"\begin{pmatrix}1/2\\3\end{pmatrix}", r"\frac12\begin{pmatrix}1\\6\end{pmatrix}"),
        (r"\frac12\begin{pmatrix}1\\6\end{pmatrix}", r"\begin{pmatrix}1/2\\3\end{pmatrix}"),
        (r"\begin{pmatrix}-1&2\\0&x\end{pmatrix}", r"-\begin{pmatrix}1&-2\\0&-x\end{pmatrix}"),
        (r"k\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{bmatrix}k\\2k\end{bmatrix}"),
        (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"2\cdot\begin{pmatrix}1\\2\end{pmatrix}"),
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
    "dates and ranges": [
        ("2024-05-03", "2024-06-02"), ("2024-05-01", "2018"), ("2018", "2024-05-01"), ("5/1/2024", "10/2/2024"),
        ("5/1/2024", "1/5/2024"), ("5/1/2024", r"\frac{5}{2024}"), (r"\frac{5}{2024}", "5/1/2024"),
        ("1999-2003", "1995-1999"), ("1999-2003", "-4"), ("12-15", "-3"), ("12-15", "13-16"), ("12-15", "15-12"),
        ("12-15", "12"), ("3-2", "4-3"), (r"\text{12-15}", "-3"), (r"\text{12-15}", r"\text{13-16}"),
        (r"\text{2024-05-03}", r"\text{2024-06-02}"), ("3-5 years", "4-6 years"), ("2019", "2024-05"),
        (r"3-5\text{ cm}", r"3-5\text{ m}"), ("12-15, 20-25", "12-16, 20-25"), ("5", "7-3"),
        (r"5-10\%", r"6-11\%"), (r"20^\circ-30^\circ", r"30^\circ-40^\circ"), ("(2024-05-03)", "(2024-06-02)"),
    ],
    "values by name": [
        ("x=1, y=2", "2,1"), ("a=3, b=5, c=7", "7,5,3"), ("x=1, y=2", "(2,1)"), ("a=3, b=5, c=7", "a=3, 7, 5"),
        ("x=1, y=2", r"\{2,1\}"), ("y=2, x=1", "1,2"), ("x=1, y=2", "1,3"), ("x=1, y=2", "x=2, y=1"),
    ],
    "inequalities": [
        ("x<2", "2x<5"), ("x<2", "-x<-2"), ("x<2", "x-2>0"), ("x<2", r"2x\le4"), ("x<2", "2y<4"), ("x<2", "y<2"),
        ("x+y<3", "y<3+x"), ("x+y<3", r"y\le3-x"), ("x+y<3", "y>3-x"),
        (r"y\ge 2x", r"y-2x\le0"), (r"y\ge 2x", "y-2x>0"),
        (r"(3,\infty)", r"2x\ge 6"), (r"(3,\infty)", "2x<6"), (r"(3,\infty)", "3x>6"), (r"(3,\infty)", "x+y>6"),
        (r"(3,\infty)", "x^2>9"), ("2x>6", "(3,4)"), (r"x\ne 2", r"x-3\ne0"), ("1<x<3", "2<2x<7"), ("1<x<3", "x<3"),
        ("1<x<3", "1<-x<3"), ("y>2x", "x>2y"), ("x<2", r"\frac{1}{x}<\frac12"), ("x<2", "x^2<4"), ("x<2", "x^2-2x<0"),
        ("x>0", "x^3>0"), ("x>e", r"(2,\infty)"), (r"(3,\infty)", "2e>6"), ("x<2", "0<2"),
        ("(0,1)", "2x>0"), ("y<3-x", "x<3+y"),
    ],
    "notations": [
        (r"\lg 2", r"\ln 2"), (r"\lg 2", r"\lg 3"), (r"\tg x", r"\cot x"), (r"2^-1", "2"), (r"2^-1", "-2"),
        (r"\langle1,2\rangle", "(2,1)"), (r"\{1,2\}", r"\{1,2,3\}"), (r"\{1,2\}", "1,2,2"), ("1,1,2", "1,2,2"),
        ("4", r"\therefore 3"), ("4", r"3\checkmark"),
    ],
    "multiples of matrices": [
        (r"\begin{pmatrix}1/2\\3\end{pmatrix}", r"\frac12\begin{pmatrix}1\\7\end{pmatrix}"),
        (r"\begin{pmatrix}1/2\\3\end{pmatrix}", r"\frac12\begin{pmatrix}1&6\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"2\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"-\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_the_same_in_another_form(grader: Grader, kind: str) -> None:
    assert dict.fromkeys(SAME[kind], "correct") == verdicts(grader, SAME[kind])


@pytest.mark.parametrize("kind", OTHER)
def test_what_only_looks_like_it(grader: Grader, kind: str) -> None:
    assert dict.fromkeys(OTHER[kind], "wrong") == verdicts(grader, OTHER[kind])
