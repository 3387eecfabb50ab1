"""Multiple choice: options with letters, the thousand of many, and which letter a box names."""

from typing import Any

import pytest

from evaluation.benchmarks import choice
from evaluation.graders.choice import letter
from evaluation.grading import Grader
from evaluation.records import RecordError


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
        ("B not C", None), ("B two or C three", None), ("A: B", None), ("A - B", None), ("A-B", None), ("B, C", None),
        ("I think two", None), ("A triangle", None), ("b seven", None), ("option", None), ("B+C", None),
        ("B or C or D", None), ("A B", None), ("x_1", None), ("B^2", None),
    ],
)  # fmt: skip
def test_the_letter_in_a_box(box: str | None, named: str | None) -> None:
    assert letter(box) == named


def test_verdicts() -> None:
    problem = choice.parse_supergpqa("test", rows(1000))[0]
    with Grader(workers=1) as grader:
        items = [(problem, text, "stop") for text in ("\\boxed{B}", "\\boxed{C}", "B", "\\boxed{B, C}")]
        assert [g.verdict for g in grader.grade(items)] == ["correct", "wrong", "no_answer", "no_answer"]
