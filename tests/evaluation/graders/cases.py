"""Code problems and judging one program, for the tests of code grading."""

from typing import Any

from evaluation.grading import Graded, Grader
from evaluation.records import Problem

DOUBLE = {"entry_point": "f", "setup": "", "asserts": ["assert f(3) == 6", "assert f(10) == 20"]}


def problem(tests: dict[str, Any], gold: str = "def f(x):\n    return x * 2") -> Problem:
    return Problem("1", "test", "code", "?", gold, tests)


def judge(
    grader: Grader, program: str, tests: dict[str, Any] = DOUBLE, gold: str = "def f(x):\n    return x * 2"
) -> Graded:
    return grader.grade([(problem(tests, gold), f"```python\n{program}\n```", "stop")])[0]
