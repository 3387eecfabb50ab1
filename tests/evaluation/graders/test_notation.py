"""Maths answers as models write them: what is the gold answer in another notation, and what only looks like it."""

import time
from collections.abc import Iterator

import pytest

from evaluation.graders.maths import without_worker
from evaluation.graders.notation import clean, value
from evaluation.grading import Grader
from evaluation.records import Problem


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    """With time enough for a busy machine: what is tested is what the answers say."""
    with Grader(workers=2, maths_timeout_s=60.0) as patient:
        yield patient


def judge(grader: Grader, gold: str, answer: str) -> str:
    return grader.grade([(Problem("1", "test", "maths", "?", gold), f"\\boxed{{{answer}}}", "stop")])[0].verdict


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\sqrt{2}", "√2"), (r"3\sqrt{5}", "3√5"), (r"\sqrt{x+1}", "√(x+1)"), (r"\frac12", "½"), (r"\frac72", "3½"),
        (r"\frac12", "1⁄2"), ("x^2", "x²"), ("10^{12}", "10¹²"), (r"\frac{1}{x}", "x⁻¹"), ("6", "3·2"), ("25", "２５"),
        ("18", r"\$18"), (r"\$36", "36"), (r"\$18.90", "18.90"), ("18.90", r"\$18.9"), ("18", r"\text{\$}18"),
        (r"\$32,\!348", r"\$32,348"), (r"\$32,\!348", "32348"), (r"\$36", r"\$36.00"), ("$18$", "18"),
        (r"\infty", r"+\infty"), (r"\infty", r"\infty"), (r"-\infty", r"-\infty"), ("62.5%", "62.5"),
        ("62.5%", r"62.5\%"), ("62.5", r"62.5\%"), ("17.5", "17.5%"), ("17.5%", "17.5"), ("62.5%", "0.625"),
        ("62.5%", r"62.5\text{ percent}"), ("8.5", "8.5 percent"), ("50", r"50\%"), ("10", r"10\%"),
        ("18", "18 dollars"), ("18", "18 eggs"), ("18", "USD 18"), ("18", "€18"), ("18", r"\text{18 hours}"),
        ("18", r"\textbf{18 hours}"), ("18", r"\textbf{18} hours"), ("18", "18 dollars per hour"),
        ("18", r"18\text{ miles/hour}"), ("5", r"\text{5 cm}"), ("5", r"\text{5 m}"), ("5", r"5^{\text{th}}"),
        ("12", "12^{th}"), ("12", "12th"), ("5", "**5**"), ("18", r"{\bf 18}"), (r"90^\circ", "90°"),
        (r"90^\circ", "90"), (r"90^\circ", r"90 \text{ degrees}"), ("90", r"90^{\circ}"),
        (r"\text{June 20}", "June 20"), (r"\frac72", "3 1/2"), (r"\frac72", r"3\frac{1}{2}"), (r"\frac72", r"3\frac12"),
        ("-3", r"\text{-}3"), ("[-2,7]", r"-2\le x\le 7"), (r"x \in [-2,7]", r"-2\le x\le 7"),
        (r"x \in [-2,7]", "[-2,7]"), (r"(3,\infty)", "x>3"), ("x>3", r"(3,\infty)"), ("3<x<5", "5>x>3"),
        ("3<x<5", "(3,5)"), ("[2,3)", r"2\le x<3"), ("[2,3)", r"3>x\ge 2"), (r"\emptyset", r"\varnothing"),
        ("73", "73."), ("73", "73,"), ("73", r"73\ "), ("73", r"73\,"), ("73", r"73\,."), ("5", r"5 \text{ cm}^2"),
        (r"864 \mbox{ inches}^2", "864"), (r"864 \mbox{ inches}^2", r"864 \text{ in}^2"), (r"5.4 \text{ cents}", "5.4"),
        (r"5.4 \text{ cents}", "5.4 cents"), ("0.5", "1/2 hour"), ("0.5", r"\frac12 \text{ hour}"),
        ("18000000", "18 million"), ("1500000", r"1.5\text{ million dollars}"), ("5,7", r"5 \text{ and } 7"),
        ("2516_8", "2516"), ("2516_8", "2516_{8}"), ("2516_8", r"2516_{\text{eight}}"), ("5", "5_{10}"),
        ("4210_{5}", "4210_5"), ("(1,2)", "1,2"), ("1,3,5", r"\{5,3,1\}"), ("8", "3+5=8"), ("8", "x=8"),
        ("60", r"x = 60 \text{ minutes}"), ("5", "5 times"), ("5", r"5\text{ more}"), (r"\text{(C)}", "C"),
        (r"\text{(C)}", "(C)"), (r"1\frac{4}{5}", r"\frac95"), (r"1\frac{4}{5}", "1 4/5"),
        (r"137 \frac{1}{2}", "137.5"), ("1040", "1 040"), ("(1,2),(3,4)", r"\{(3,4),(1,2)\}"), (r"\text{even}", "even"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"), (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ"),
        (r"\frac{1}{2}", ".5"), (r"\infty", r"\infty+1"), (r"\infty", r"2\infty"),
        (r"3 \text{ feet } 6 \text{ inches}", "3 feet 6 inches"), ("(1,2)", "1<x<2"), ("18", "18.00"),
        ("18", "18 years old"), ("18", r"18 \text{ years old}"), ("1{,}234.5", r"\$1,234.50"),
        (r"\frac{3}{4}", "3/4 cup"), (r"\frac{3}{4}", "0.75"), ("20", r"20\%"), ("0.2", r"20\%"), ("x^2+1", "1+x^2"),
        ("5", "n=5"), ("5", "5."), ("5", r"\textbf{5}"), ("5", "{5}"), ("18", r"18 \, \text{cm}"),
        ("12", r"12\text{ inches}"), ("18", r"\mathbf{18}\text{ eggs}"), ("90", "90 degrees"), ("-5", r"-\$5"),
        ("-5", r"\$-5"), ("2,3", r"x=2 \text{ or } x=3"), (r"\text{even}", r"\text{Even}"), ("p - q", "p-q"),
        ("2", "x = 2"), ("5", r"\text{5}"), ("5", r"5 \ \text{units}"), ("1000", "10^3"),
        (r"\text{(C)}", r"\textbf{(C)}"), ("12", r"12 \text{ km/h}"), (r"15\mbox{ cm}^2", "15"),
        (r"15\mbox{ cm}^2", r"15\text{ cm}^2"), (r"288 \pi", r"288\pi \text{ cubic inches}"), ("y = 2x + 3", "y=2x+3"),
        ("3R^2", "3R^2"), ("52_8", "52_8"), ("f(x)=2 x", "2x"), ("60", r"60 \text{ mph}"), (r"\frac{11}{2}", "5.5"),
        (r"11\sqrt2", r"11\sqrt{2}"), (r"3 \pm 2 \sqrt{2}", r"3+2\sqrt2, 3-2\sqrt2"),
        ("18 dollars", "18"), ("12元", "12"), ("5 cm", "5"), ("91", "`91`"), ("91", r"\bbox[yellow]{91}"),
        (r"\begin{equation*}12\end{equation*}", "12"), ("[1,2]", r"\left\{x \,\middle|\, 1\le x\le 2\right\}"),
        (r"(-1,0) \cup (2,5)", r"\{x: -1<x<0\} \cup \{x: 2<x<5\}"), ("60, 120", "60,120"),
        (r"60^\circ, 120^\circ", "60,120"), (r"\pm 2", r"\{\pm2\}"), ("5", "(2+i)(2-i)"),
        ("18", r"18\,{\rm m}"), (r"30^\circ", r"\frac{\pi}{6}"), (r"\frac{1}{3}", "0.333333"),
        ("f(x)=2x", "f(x) = x+x"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)\cup(3,+\infty)"), (r"\frac{1}{16}", r"\frac1{16}"),
        (r"\frac{y}{3z}", r"\frac y{3z}"), (r"\binom{9}{14}", r"\binom9{14}"),
        ("23", r"\textit{\textbf{23}}"), ("54321", "54~321"), (r"8:20\text{ a.m.}", r"8:20~\mathrm{AM}"),
        (r"3\sqrt2", r"3\sqrt2, \sqrt{18}"),
        (r"\begin{align*}n&=23\end{align*}", "23"), (r"x\equiv2\pmod9", r"x\equiv 11\mod 9"),
        (r"\frac{5}{11}", r"0.454545\ldots"), (r"\text{rhombus}", "a rhombus"),
        ("4:5:6", "8:10:12"),
        (r"\begin{cases}k&k\text{ odd}\\2k&k\text{ even}\end{cases}",
         r"\begin{cases}k&\text{if }k\text{ is odd}\\2k&\text{if }k\text{ is even}\end{cases}"),
    ],
)  # fmt: skip
def test_the_gold_answer_in_another_notation(grader: Grader, gold: str, answer: str) -> None:
    assert judge(grader, gold, answer) == "correct"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x^2", "x2"), (r"\sqrt{25}", "2√5"), ("12", "1²"), (r"\frac{31}{2}", "3½"), ("18", r"\$19"), ("18", r"\$180"),
        ("36", r"\$3.6"), ("18", "18 or 19"), ("18", r"18 \text{ or } 19"), ("18", r"18 \text{ or more}"),
        ("18", "18 million"), ("18", r"18\text{ million}"), ("18", r"18\text{ dozen}"), ("18", "18 and a half"),
        ("18", "18 nineteen"), ("18", "x=18,y=3"), ("18", "18, 3"), ("31/2", "3 1/2"),
        (r"\frac{3}{2}", r"3\frac{1}{2}"), ("12", "12 or 13"), ("5", r"5 \text{ or } 7"), ("7", r"5 \text{ or } 7"),
        ("5", "5 xy"), ("5", "5x"), ("5", r"5\pi"), ("5", "5 pi"), (r"\infty", r"-\infty"), (r"\infty", "5"),
        ("5", r"\infty"), ("62.5%", "6.25"), ("62.5%", "62"), ("62.5", "0.625%"), ("(1,2)", r"\{1,2\}"),
        (r"\{1,2\}", "(1,2)"), ("(1,2),(3,4)", r"\{1,2\},\{3,4\}"), ("2516_8", "2516_9"), ("2516_8", "2516_{10}"),
        ("2516_8", "2517_8"), ("5", "5_{7}"), ("12", "12_7"), ("3", r"3\text{ feet} 6\text{ inches}"),
        ("3", "3 feet 6 inches"), ("36", r"3\text{ feet} 6\text{ inches}"), ("36", "3 feet 6 inches"),
        (r"(1,\infty)", r"(1,\infty]"), (r"(-\infty,1)", r"[-\infty,1)"), ("5", "6=5"), ("5", "x=6=5"), ("12", "1 2"),
        ("12", r"\text{1 2}"), ("(1,2)", "[1,2]"), (r"\text{June 20}", "June 2"), (r"\text{June 20}", "20"),
        (r"\text{June 20}", "July 20"), (r"\text{east}", "seat"), ("[-2,7]", r"-2<x\le 7"), (r"(3,\infty)", r"x\ge 3"),
        ("3<x<5", "5>x>2"), ("3<x<5", r"5\ge x>3"), ("-3", r"\text{+}3"), ("-3", "3"), ("2^{n}", "2"),
        ("5", r"6^{\text{th}}"), (r"90^\circ", "91°"), (r"\emptyset", r"\{1\}"), ("5x", "5"), ("5", "5!"), ("120", "5"),
        ("5", r"\frac{5}{2}"), ("2", "2^3"), ("18", "18x"), ("18", "18 - 1"), ("18", "18 dollars and 50 cents"),
        ("18", "18.5 dollars"), ("18", "1.8 dollars"), ("18", "18 - x dollars"), ("5", "5 - 3 apples"),
        ("5", "5/6 apples"), ("3", r"3\frac{1}{2}"), ("3", "3 1/2 cups"), ("20", "0.2"), (r"20\%", "0.02"),
        ("5", "15 cm"), ("100", "10^{-2}"), ("10", "10^{2}"), ("2", "2^{nd}x"), ("3", "3!"), ("5", r"\text{not } 5"),
        ("5 m", "5"), ("3 abc", "3"), ("2 n", "2"), ("5 cm", r"5\text{ m}"), ("(1,10^{-30})", "(1,0)"),
        ("[1,2]", r"\{x\in\mathbb{Z} \mid 1\le x\le2\}"), ("10^{-20}", "0"),
        ("-x^5+1", "-x^5+1_3"), (r"\frac{7}{2}", r"\frac{7}{2_3}"), ("[-3,-1]", "[-3,-1-]"),
        ("27", "27-"), (r"27^\circ", r"27^\circ-"), ("100", r"100_3^\circ"),
        (r"x \in [-2,7]", r"y \in [-2,7]"), (r"x \in [-2,7]", r"x+1 \in [-2,7]"), ("k=6", "=2k=6"),
        ("f(x)=x,f(x)=-x", "f(x)=x,g(x)=-x"), ("a=2,a=3", "t=2,a=3"), (r"s^2 \le 8r^2", r"s^2 \ldots \le 8r^2"),
        (r"23a+39b", r"23a+39b\%"), (r"x\equiv 3 \pmod 7", r"y\equiv 3 \pmod 7"), ("x", "X"), ("x", "x+10^{-20}"),
        (r"90^\circ", r"90\%"), (r"2 \text{ euros}", r"2 \text{ cents}"), (r"45^\circ 30'", r"45^\circ"),
        ("1,234", "1, 234"), ("1,234", r"\{1,234\}"), ("5", "a=5,b=5"), (r"3\sqrt2", r"3\sqrt2, \sqrt{19}"),
        (r"\frac{1}{16}", r"\frac116"), ("5", r"\begin{cases}\end{cases}"), ("3", r"3\text{k}"),
        ("e", r"2.718281828\ldots"), (r"\text{rhombus}", r"\text{not a rhombus}"), ("2:3", "10:15:30"),
        ("4:5:6", "8:10:14"),
        ("5", r"5 \text{ or } x"), ("18", "18 / 2 eggs"), ("1", "1<x"), ("52_8", "52_{16}"), ("7", "7 i"),
    ],
)  # fmt: skip
def test_another_answer_in_a_like_notation(grader: Grader, gold: str, answer: str) -> None:
    assert judge(grader, gold, answer) == "wrong"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("-1{,}040.50", "-1040.5"), (".5", "0.5"), ("3/4", "0.75"), ("-3\\frac{1}{2}", "-3.5"), ("3\\frac{5}{2}", None),
        ("1/0", None), ("1 2", None), ("x", None), ("9" * 500, None), ("5%", None),
    ],
)  # fmt: skip
def test_value(text: str, number: str | None) -> None:
    found = value(clean(text))
    assert (found if found is None else float(found)) == (number if number is None else float(number))


@pytest.mark.parametrize(
    "part", ["{", "\\text{", "(", "\\ge ", "1 ", "1,", "\\frac1", "^2", " a", "\\text{a}", "*", ">x", "=1", "\\$"]
)
def test_no_text_takes_long(part: str) -> None:
    started = time.process_time()
    without_worker("18", "1" + part * (1900 // len(part)))
    without_worker("18", part * (1900 // len(part)))
    assert time.process_time() - started < 0.5
