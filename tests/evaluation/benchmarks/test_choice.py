"""Multiple choice: options with letters, the thousand of many, and which letter a box names."""

import time
from typing import Any

import pytest

from evaluation.benchmarks import choice
from evaluation.graders.choice import letter, without_letters
from evaluation.grading import Grader
from evaluation.records import RecordError
from tests.evaluation.graders.number_rules import EMPHASIS


def rows(n: int) -> list[dict[str, Any]]:
    return [
        {"uuid": f"u{i}", "question": f"{i}?", "options": ["one", "two", "three"], "answer_letter": "B"}
        for i in range(n)
    ]


def test_supergpqa_takes_the_same_thousand_in_any_order() -> None:
    problems = choice.parse_supergpqa("test", rows(1500))
    assert len(problems) == 1000
    assert problems == choice.parse_supergpqa("test", rows(1500)[::-1])
    assert "0?\nA) one\nB) two\nC) three\nPlease" in choice.parse_supergpqa("test", rows(1000))[0].prompt
    with pytest.raises(RecordError, match="999 problems, the complete set has 1000"):
        choice.parse_supergpqa("test", rows(999))


def test_rbench_reads_one_column_an_option() -> None:
    given = [{"index": i, "question": f"{i}?", "A": "x", "B": "y", "F": None, "answer": "A"} for i in range(1094)]
    assert choice.parse_rbench("test", given)[3].gold == "A"
    given[2]["answer"] = "C"
    with pytest.raises(RecordError, match="row 3: the answer 'C' is not the letter of one of its 2 options"):
        choice.parse_rbench("test", given)


@pytest.mark.parametrize(
    ("box", "named"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("\\text{B}", "B"), ("\\mathbf{(B)}", "B"), ("B. two", "B"),
        ("(B) two", "B"), ("B)", "B"), ("B \\text{ (42)}", "B"), ("A \\text{ (42)}", "A"), ("\\text{Option B}", "B"),
        ("[B]", "B"), ("B seven", "B"), ("\\mathsf{B}", "B"), ("\\textit{B}", "B"), ("\\boxed{B}", "B"),
        ("\\boxed{\\text{(B)}}", "B"), ("**B**", "B"), ("B.", "B"), ("Answer: B", "B"), ("option (b)", "B"),
        ("B - seven", "B"), ("B = 42", "B"), ("B: vitamin C", "B"), ("\\text{B}\\ \\text{two}", "B"),
        ("\\textbf{B. two, three and four}", "B"), ("two", None), ("AB", None), ("A, B", None), ("", None),
        (None, None), ("7", None), ("A or B", None), ("\\text{A or B}", None), ("A \\text{ or } B", None),
        ("(A) or (B)", None), ("A and B", None), ("A/B", None), ("A. two or B. three", None), ("A) B)", None),
        ("B two or C three", None), ("A: B", None), ("A - B", None), ("A-B", None), ("B, C", None),
        ("I think two", None), ("A triangle", None), ("b seven", None), ("option", None), ("B+C", None),
        ("B or C or D", None), ("A B", None), ("x_1", None), ("B^2", None),
        ("(B), not (C)", "B"), ("The answer is (B), not (C)", "B"), ("B not C", "B"), ("B (not C)", "B"),
        ("B rather than C or D", "B"), ("B is correct", "B"), ("(B) is the correct option.", "B"), ("`B`", "B"),
        ("*B*", "B"), ('"B"', "B"), ("Ｂ", "B"), ("（B）", "B"), ("选B", "B"), ("the correct answer is option B", "B"),
        ("B) 27", "B"), ("\\textbf{(B)}\\ 27", "B"), ("Letter B", "B"), ("B is wrong", None), ("not B", None),
        ("neither A nor B", None), ("(A)(B)(C)(D)", None), ("A. B. C. D.", None), ("A B C D", None), ("ABCD", None),
        ("A|B|C", None), ("(A), (B) and (C)", None), ("A, B, C and D", None), ("Options A and B", None),
        ("A) one B) two", None), ("A. one B. two C. three", None), ("(A) two, (B) three", None), ("A. or B.", None),
    ],
)  # fmt: skip
def test_the_letter_in_a_box(box: str | None, named: str | None) -> None:
    assert letter(box) == named


@pytest.mark.parametrize(
    "text",
    [
        "Both A and C", "A and C", "A and B only", "Neither A nor B", "All of A, B and C", "None of the above",
        "3 and B",
        "3 or 4", "A, B, and C", "A or C", "Vitamin A", "I and II", "Only A", "Statement A", "Both (A) and (C)",
        "Plan B",
        "both A and C", "Either A or B, not C", "A is true, B is false", "only (B)",
    ],
)  # fmt: skip
def test_the_text_of_an_option_may_name_letters(text: str) -> None:
    for box in (f"D. {text}", f"D) {text}", f"(D) {text}", f"D: {text}", f"\\textbf{{(D) {text}}}", f"**D. {text}**"):
        assert letter(box) == "D"
        assert letter(f"\\text{{Option {box}}}") == "D"


@pytest.mark.parametrize(
    "answer",
    [
        "\\textbf{(C)}\\ 27", "\\textbf{(C) } 27", "(C) 27", "C) 27", "C. 27", "\\mathrm{(C)}~27", "\\text{C: }27",
        "\\textbf{(C)}\\quad27", "**(C)** 27", "(\\textbf{C})\\ 27", "\\textbf{(C)}27", "{(C)}\\;27",
        "\\mathrm{(C) \\ } 27", "\\text{C} \\quad 27", "\\text{C}. \\ 27", "27\\textbf{ (C)}", "(C)\\ =\\ 27",
        "\\textbf{\\underline{(C)}}\\ 27",
        "\\textcolor{red}{(C)}\\ 27", "\\textbf{(C)}\\enspace 27", "\\text{C } 27", "\\boldsymbol{(C)}\\ 27",
        "27 \\ \\textbf{(C)}",
    ],
)  # fmt: skip
def test_a_maths_answer_with_an_options_letter_is_compared_as_what_the_gold_answer_is(answer: str) -> None:
    assert without_letters("27", answer) == ("27", "27")
    assert without_letters("C", answer) == ("C", "C")
    assert without_letters("B", answer) == ("B", "C")
    assert without_letters(answer, "27") == ("27", "27")
    assert without_letters(answer, "\\text{(C)}") == ("C", "C")
    assert without_letters(answer, "(B) 27") == ("C", "B")
    assert without_letters(answer, "\\textbf{(C)}\\ 28") == ("27", "28")


@pytest.mark.parametrize(
    "answer", ["27", "(A)\\cup(B)", "A(1,2)", "(A)^2", "c", "\\{A\\}", "A=5", "(A)", "(27)", "AB", "A+B"]
)
def test_a_letter_that_is_no_options_stays(answer: str) -> None:
    assert without_letters("27", answer) == ("27", answer)


@pytest.mark.parametrize(
    "answer",
    ["(A) or (B)", "(A), (B)", "\\textbf{(A)}\\ 27\\ \\textbf{(B)}\\ 28", "(A) 27 (B) 28", "(A)(B)", "A. 27; B. 28"],
)
def test_two_letters_in_maths_are_no_option(answer: str) -> None:
    assert without_letters("A", answer) == ("A", answer)
    assert without_letters("27", answer) == ("27", answer)


def test_reading_letters_is_linear_in_the_length() -> None:
    started = time.process_time()
    for unit in (" ", "A, B, ", "A and ", "\\ ", "\\text{", "B. (C", "option ", "$", "so, ", ")", "~", "{"):
        for before in ("", "A", "(A) 27 ", "A. ", "27 "):
            letter(f"{before}{unit * 20_000}x")
            without_letters("27", f"{before}{unit * 20_000}x")
    assert time.process_time() - started < 20


def test_verdicts() -> None:
    problem = choice.parse_supergpqa("test", rows(1000))[0]
    with Grader(workers=1) as grader:
        items = [(problem, text, "stop") for text in ("\\boxed{B}", "\\boxed{C}", "B", "\\boxed{B, C}")]
        assert [g.verdict for g in grader.grade(items)] == ["correct", "wrong", "no_answer", "no_answer"]


@pytest.mark.parametrize("form", EMPHASIS)
def test_a_font_a_colour_or_a_full_stop_leaves_the_letter(form: str) -> None:
    assert {letter(form.format(answer)) for answer in ("B", "(B)", "\\text{B. seven}")} == {"B"}
