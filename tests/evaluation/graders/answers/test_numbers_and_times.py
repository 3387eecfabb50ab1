"""Numbers times powers of ten, in bases and in words, and times of day: what equals what."""

from collections.abc import Iterator

import pytest

from evaluation.grading import Grader
from evaluation.records import Problem

GOLDS: dict[str, tuple[list[str], list[str]]] = {
    r"6.02\times10^{23}": (
        ["602000000000000000000000", "6.02e23", r"6.02 \cdot 10^{23}"],
        ["602000000000000000000001", "6.02e22", r"6.03\times 10^{23}"],
    ),
    "12300": (["1.23 x 10^4", "1.23 X 10^{4}", "1.23e4", "1.23E+4", "1.2e4+300"], ["1.23 x 10^5", "1.23x", "12300x"]),
    r"3.00\times10^8 \text{ m/s}": (["3e8 m/s", r"3e8\text{ m/s}", "300000000"], ["3e8 km/h", "3e7 m/s"]),
    r"2x\cdot 10^3": (["2x 10^3", "2000x"], ["2000"]),
    "12": (
        ["12 m/s", "1.2e1", "12 noon", "12 midnight", "12 a.m."],
        ["12 + 3e0", "12 lakh", "12 crores", "12 tens", "12 negative", "minus 12", "12 x/y", "midnight"],
    ),
    "1200000": (
        ["12 lakh", "1.2 million", "12 lakhs", r"12\text{ lakhs}", "1,200 thousands"],
        ["12 crore", "12 crores"],
    ),
    r"5 \text{ lakh}": (["5 lakhs", "500000", "500 thousands"], ["5 crores", "5", "5 millions"]),
    "500000": (["5 lakhs", "0.5 millions", "5 lakhs rupees"], ["5 crores", "5 lakhsx", "5 billions"]),
    "5000000": (["5 millions", r"5 \text{ millions}", "50 lakhs dollars"], ["5 billions", "5 thousands"]),
    "-12": (["minus 12", r"\text{negative } 12", "Negative 12"], ["minus 13", "12", "minus -12"]),
    r"9.8\text{ m/s}^2": (["9.8 m/s²", "9.8 m/s^{2}", "9.8 m/s^2"], ["9.8 m/s", "9.8 m/s³"]),
    "1A_{16}": (["1a_{16}", "1a", "1A", "1A_{(16)}"], ["1B", "26", "1A_{15}"]),
    "2516_8": (["2516_{(8)}", r"2516_{(\text{eight})}", "2516"], ["2516_{(9)}", "2517", "1258+1258"]),
    "1E5_{16}": (["1e5_{16}", "1E5_{(16)}"], ["100000", "1E6"]),
    "4E1_{16}": (["4E1", "4e1", "4 E1", "04E1", "4E1_{16}"], ["40", "4E2", "4e1_8", "4.0E1", "4E-1"]),
    "1E3_{16}": (
        ["1E3", "1e3", r"\text{1E3}_{16}", r"\text{1e3}_{16}"],
        ["1000", r"\text{1E3}_{15}", r"1 \times 10^{3}"],
    ),
    "2E5_{16}": (["2E5", "2e5"], ["200000", "2E6"]),
    "43210_5": (["43,210", "43{,}210", "43 210", r"43\,210"], ["4,3210", "43,211", "43.210"]),
    "-101_2": (["-0101_2", "-101", "-0101", "-101.0"], ["101", "-1010", "-5"]),
    "1011_2": (["1011.0", "01011"], ["1011.1", "11", "10110"]),
    "5_{10}": (["5", "10/2"], ["6"]),
    r"\infty": (["infinity", r"\text{Infinity}", "+infinity", "∞"], ["-infinity", "infinite", "1"]),
    "x^{10}+1": (["x**10 + 1", "1+x^{10}"], ["x**1 + 1", "x**11 + 1"]),
    r"12:00 \text{ p.m.}": (
        ["noon", "12 noon", r"\text{12:00 noon}", "12:00"],
        ["midnight", "0:00", "24:00", "12:00 a.m."],
    ),
    r"12:00 \text{ a.m.}": (["midnight", "0:00", "24:00", "12:00"], ["noon", "12:00 p.m."]),
    "12:30": (["0:30", "12:30 a.m."], ["noon", "12:31"]),
    "0:00": (["12:00 a.m.", "midnight", "24:00", "00:00:00"], ["12:00 p.m.", "noon"]),
    "24:30": (["0:30", "12:30 a.m."], ["12:30 p.m."]),
    "2:1": (["24:12", "12:06"], ["24:13", "12:12"]),
    "12:5": (["24:10"], ["24:05"]),
    "8:5": (["24:15"], ["0:15"]),
    "3:2": (["24:16"], ["24:15"]),
    "24": (["24:00"], ["0:00", "midnight"]),
    "0": (["12 a.m."], ["24:00", "0:00", "00:00:00", "midnight"]),
}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1, maths_timeout_s=60.0) as grader:
        yield grader


@pytest.mark.parametrize("gold", GOLDS)
def test_what_equals_what(grader: Grader, gold: str) -> None:
    right, wrong = GOLDS[gold]
    answers = [*right, *wrong]
    problem = Problem("1", "test", "maths", "?", gold)
    graded = grader.grade([(problem, f"\\boxed{{{answer}}}", "stop") for answer in answers])
    expected = ["correct"] * len(right) + ["wrong"] * len(wrong)
    assert dict(zip(answers, (one.verdict for one in graded), strict=True)) == dict(zip(answers, expected, strict=True))
