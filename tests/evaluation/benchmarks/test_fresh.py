"""Contests of 2025 and 2026: whole sets only, ids by the contest's numbers, answers as integers or LaTeX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get
from evaluation.grading import Grader
from evaluation.loading import load
from evaluation.records import RecordError

SIZES = {"aime26": 30, "hmmt_feb25": 30, "hmmt_nov25": 30, "hmmt_feb26": 33, "brumo25": 30, "beyond_aime": 100}


def rows(name: str, answer: Any = 7) -> list[dict[str, Any]]:
    return [{"problem_idx": n, "problem": f"What is {n}?", "answer": answer} for n in range(1, SIZES[name] + 1)]


def parse(name: str, of: list[dict[str, Any]]) -> Any:
    reader = get(name).parse
    assert reader is not None
    return reader("test", of)


@pytest.mark.parametrize("name", SIZES)
def test_a_whole_set_has_its_size_and_the_papers_instruction(name: str) -> None:
    problems = parse(name, rows(name))
    assert (len(problems), get(name).size) == (SIZES[name], SIZES[name])
    assert (problems[0].id, problems[-1].id) == (f"{name}-1", f"{name}-{SIZES[name]}")
    assert problems[4].prompt.endswith("put the correct answer within \\boxed{} at last.")
    assert {problem.gold for problem in problems} == {"7"}
    with pytest.raises(RecordError, match=f"{SIZES[name] - 1} problems, the complete set has {SIZES[name]}"):
        parse(name, rows(name)[1:])


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("aime26", "1/2", "aime26, row 1: the answer '1/2' is not a whole number"),
        ("beyond_aime", None, "beyond_aime, row 1: the answer None"),
        ("hmmt_feb26", None, "hmmt_feb26, row 1: there is no answer"),
        ("brumo25", " ", "brumo25, row 1: there is no answer"),
        ("hmmt_feb25", [1, 2], "is not a whole number"),
    ],
)
def test_an_answer_that_cannot_be_one_is_named_with_its_row(name: str, answer: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse(name, rows(name, answer))


def test_a_local_file_is_read_and_latex_answers_are_graded(tmp_path: Path) -> None:
    file = tmp_path / "hmmt_feb26" / "hmmt_feb26.jsonl"
    file.parent.mkdir()
    written = rows("hmmt_feb26", r"\frac{\sqrt{3}}{2}")
    file.write_text(
        "".join(json.dumps({**row, "problem_idx": f"hmmt_feb26-{row['problem_idx']}"}) + "\n" for row in written)
    )
    problems = load(get("hmmt_feb26"), "test", tmp_path)
    assert problems[0].id == "hmmt_feb26-1"
    with Grader(workers=1) as grader:
        right, wrong = grader.grade(
            [(problems[0], r"so \boxed{\sqrt{3}/2}", "stop"), (problems[0], r"so \boxed{\sqrt{3}}", "stop")]
        )
    assert (right.verdict, wrong.verdict) == ("correct", "wrong")


def gpqa_rows(**changed: Any) -> list[dict[str, Any]]:
    wrong = {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    return [
        {"Record ID": f"rec{n}", "Question": f"{n}?", "Correct Answer": "right", **wrong, **changed} for n in range(198)
    ]


def test_gpqa_has_its_options_in_an_order_that_is_the_same_everywhere() -> None:
    problems = parse("gpqa_diamond", gpqa_rows())
    assert parse("gpqa_diamond", gpqa_rows()) == problems
    golds = [problem.gold for problem in problems]
    assert all(30 < golds.count(letter) < 70 for letter in "ABCD")
    assert all(f"{problem.gold}) right" in problem.prompt for problem in problems)
    with pytest.raises(RecordError, match="gpqa_diamond, row 1: the right answer is among the wrong ones"):
        parse("gpqa_diamond", gpqa_rows(**{"Incorrect Answer 2": "right"}))
    with pytest.raises(RecordError, match="column 'Incorrect Answer 3' is empty"):
        parse("gpqa_diamond", gpqa_rows(**{"Incorrect Answer 3": None}))
