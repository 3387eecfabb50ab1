"""Judging one program by cases, for the tests of that."""

from typing import Any

from evaluation.grading import Graded, Grader
from evaluation.records import Problem

SUM: dict[str, Any] = {
    "cases": [{"input": "1 2\n", "output": "3\n"}, {"input": "10 -4\n", "output": "6\n"}],
    "time_limit_s": 1.0,
}
"""The sum of two numbers."""
RIGHT = "a, b = map(int, input().split())\nprint(a + b)"


def judge(grader: Grader, program: str, tests: dict[str, Any] = SUM) -> Graded:
    problem = Problem("1", "test", "code", "?", "", tests)
    return grader.grade([(problem, f"```python\n{program}\n```", "stop")])[0]


def cases(*pairs: tuple[str, str], **settings: Any) -> dict[str, Any]:
    return {"cases": [{"input": one, "output": other} for one, other in pairs], "time_limit_s": 1.0, **settings}
