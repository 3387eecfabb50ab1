"""Programs as models write them get the verdict that an online judge would give them."""

from evaluation.grading import Grader
from tests.evaluation.benchmarks.contests.programs import build


def test_what_is_right_passes_and_what_is_wrong_does_not() -> None:
    programs = build(1, 2, endless=False)
    with Grader(2) as grader:
        graded = grader.grade([(program.problem, program.source, "stop") for program in programs])
    verdicts = {(p.problem.id, p.kind): g for p, g in zip(programs, graded, strict=True)}
    wrong = {key: g for key, g in verdicts.items() if (g.verdict == "correct") != key[1].startswith("right")}
    assert not wrong, wrong
