"""Votes: which wrong answers are one, at what cost."""

import time
from collections.abc import Iterator

import pytest

from evaluation.grading import Graded, Grader
from evaluation.metrics.estimates import majority_share
from evaluation.records import Problem, Score
from evaluation.voting import MOST_COMPARED, pool_votes


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    """With time enough for a busy machine: what is tested is which answers are one."""
    with Grader(workers=2, maths_timeout_s=60.0) as patient:
        yield patient


def scored(grader: Grader, gold: str, answers: list[str], problem_id: str = "1") -> list[Score]:
    graded: list[Graded] = grader.grade(
        [(Problem(problem_id, "test", "maths", "?", gold), f"\\boxed{{{text}}}", "stop") for text in answers]
    )
    return [Score("test", problem_id, n, g.verdict, g.extracted, gold) for n, g in enumerate(graded)]


@pytest.mark.parametrize(
    ("gold", "answers", "share"),
    [
        ("5", ["5", "correct", "correct"], 0),  # a word that a label could be mistaken for
        ("5", ["5", "right", "right"], 0),
        ("5", ["5", "\\text{right}", "number 5", "text 5"], 0.25),
        ("5", ["5", "5.0", "\\$5", "6", "6"], 1),
        ("5", ["5", "\\frac{1}{2}", "0.5", "1/2"], 0),
        ("5", ["5", "50\\%", "50 \\%"], 0),
        ("5", ["5", "2\\sqrt{3}", "\\sqrt{12}"], 0),
        ("5", ["5", "2\\sqrt{3}", "\\sqrt{13}"], 1 / 3),
        ("5", ["5", "\\text{June 20}", "June 20"], 0),
        ("5", ["5", "x+1", "1+x", "x+2"], 0),
        ("5", ["5", "{", ""], 1),
    ],
)
def test_equal_answers_are_one_vote(grader: Grader, gold: str, answers: list[str], share: float) -> None:
    scores = scored(grader, gold, answers)
    labels = pool_votes(scores, grader)
    assert majority_share(
        [(int(s.verdict == "correct"), label) for s, label in zip(scores, labels, strict=True)]
    ) == pytest.approx(share)


def test_pools_of_several_problems_are_their_own(grader: Grader) -> None:
    scores = [*scored(grader, "5", ["5", "6", "6.0"], "a"), *scored(grader, "6", ["6", "5", "5.0"], "b")]
    labels = pool_votes(scores, grader)
    assert labels[0] == labels[3]
    assert labels[1] == labels[2] != labels[0]


def test_many_distinct_answers_take_a_bounded_time(grader: Grader) -> None:
    answers = [f"x^{{{n}}} + \\sqrt{{{n}}}" for n in range(2, 66)]
    scores = [Score("test", "1", n, "wrong", text, "5") for n, text in enumerate(answers)]
    scores += [Score("test", "1", n, "correct", "5", "5") for n in range(64, 66)]
    grader.grade(
        [(Problem("1", "test", "maths", "?", "1/3"), f"\\boxed{{{text}}}", "stop") for text in ("x", "y")]
    )  # start the workers
    started = time.perf_counter()
    labels = pool_votes(scores, grader)
    assert time.perf_counter() - started < 40  # 2 s on an idle machine; without a bound 2016 pairs
    assert len(set(labels)) == 65


def test_the_most_frequent_answers_are_compared(grader: Grader) -> None:
    """Of more distinct answers than are compared, those that can win are."""
    rare = [f"x^{{{n}}}" for n in range(3, 3 + MOST_COMPARED)]
    answers = [*rare, *["2\\sqrt{3}"] * 2, *["\\sqrt{12}"] * 2]
    scores = [Score("test", "1", n, "wrong", text, "5") for n, text in enumerate(answers)]
    scores += [Score("test", "1", len(scores) + n, "correct", "5", "5") for n in range(3)]
    labels = pool_votes(scores, grader)
    assert len(set(labels[len(rare) : len(rare) + 4])) == 1


def test_what_took_too_long_once_is_not_compared(grader: Grader) -> None:
    scores = [Score("test", "1", n, "timeout", f"9^{{9^{{9^{n}}}}}", "5") for n in range(2, 12)]
    started = time.perf_counter()
    labels = pool_votes([*scores, Score("test", "1", 99, "correct", "5", "5")], grader)
    assert time.perf_counter() - started < 1
    assert len(set(labels)) == 11
