"""The demo's own tasks: deterministic, disjoint by construction, and graded as their answers and programs say."""

import re

import pytest

from evaluation.benchmarks.generated import tiny_code, word_problems
from evaluation.benchmarks.generated.synthetic import split_of
from evaluation.grading import Grader

TASKS = [word_problems, tiny_code]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.NAME)
def test_splits_share_no_computation(task: object) -> None:
    made = {split: task.generate(split, 150, 0) for split in ("train", "dev", "test")}  # type: ignore[attr-defined]
    computations = {split: {task.spec_of(p).computation for p in problems} for split, problems in made.items()}  # type: ignore[attr-defined]
    for split, found in computations.items():
        assert all(split_of(computation) == split for computation in found)
    assert not computations["train"] & computations["test"]
    assert not computations["train"] & computations["dev"]
    assert not computations["dev"] & computations["test"]
    prompts = [p.prompt for problems in made.values() for p in problems]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.NAME)
def test_a_seed_decides_everything(task: object) -> None:
    assert task.generate("test", 20, 3) == task.generate("test", 20, 3)  # type: ignore[attr-defined]
    assert task.generate("test", 20, 3) != task.generate("test", 20, 4)  # type: ignore[attr-defined]
    problems = task.generate("train", 20, 3)  # type: ignore[attr-defined]
    assert task.demonstrate(problems, 1) == task.demonstrate(problems, 1)  # type: ignore[attr-defined]
    assert task.demonstrate(problems, 1) != task.demonstrate(problems, 2)  # type: ignore[attr-defined]


def test_word_problem_answers_follow_from_the_question() -> None:
    """Recompute every answer from the words of the question alone."""
    for problem in word_problems.generate("test", 100, 0):
        spec = word_problems.spec_of(problem)
        value = int(re.search(r"has (\d+)", problem.prompt).group(1))  # type: ignore[union-attr]
        for step in spec.steps:
            value = step.apply(value)
        assert str(value) == problem.gold
        assert 0 <= value <= word_problems.LARGEST


def test_demonstrations_are_of_mixed_quality_and_graded_as_such() -> None:
    problems = word_problems.generate("train", 300, 0) + tiny_code.generate("train", 60, 0)
    texts = word_problems.demonstrate(problems[:300], 0) + tiny_code.demonstrate(problems[300:], 0)
    with Grader(2) as grader:
        graded = grader.grade([(p, text, "stop") for p, text in zip(problems, texts, strict=True)])
    maths, code = graded[:300], graded[300:]
    right = sum(g.verdict == "correct" for g in maths) / len(maths)
    assert 0.9 < right < 1.0, "a few worked demonstrations carry a slip; all the others are right"
    assert {g.verdict for g in code} == {"correct", "wrong"}, (
        "one-line programs are wrong where a product follows a sum"
    )
    worked = sum("<think>" in text for text in texts[:300])
    assert 60 < worked < 240, "some show their work, some do not"


def test_reference_programs_pass_their_own_tests() -> None:
    problems = tiny_code.generate("test", 40, 0)
    with Grader(2) as grader:
        graded = grader.grade([(p, tiny_code.fenced(p.gold), "stop") for p in problems])
    assert {g.verdict for g in graded} == {"correct"}
