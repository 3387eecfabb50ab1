"""HumanEval: asserts out of `check(candidate)`, and tests that loop."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import humaneval, humaneval_plus
from evaluation.graders import code
from evaluation.loading import load
from evaluation.records import RecordError
from evaluation.sandbox import Sandbox

PROMPT = 'import math\n\ndef f(x):\n    """Double it."""\n'
TEST = (
    "METADATA = {}\n\ndef check(candidate):\n    assert True, 'never'\n"
    "    y = 3\n    assert candidate(y) == 6, candidate(1)\n"
)
LOOP = (
    "def check(candidate):\n    import random\n"
    "    for _ in range(5):\n        x = random.randint(0, 99)\n        assert candidate(x) == 2 * x\n"
)


def rows(**changes: Any) -> list[dict[str, Any]]:
    row = {"prompt": PROMPT, "entry_point": "f", "canonical_solution": "    return 2 * x\n", "test": TEST}
    made = [row | {"task_id": f"HumanEval/{number}"} for number in range(164)]
    made[0] |= changes
    return made


def test_a_test_becomes_set_up_and_asserts() -> None:
    problem = humaneval.parse("test", rows())[0]
    assert problem.tests == {
        "entry_point": "f",
        "preamble": "import math",
        "setup": "y = 3",
        "asserts": ["assert f(y) == 6, f(1)"],
    }
    assert problem.gold == PROMPT + "    return 2 * x\n"


def test_a_test_that_loops_is_recorded() -> None:
    problem = humaneval.parse("test", rows(test=LOOP))[0]
    assert problem.tests["recorded"] == LOOP.strip()
    with Sandbox() as sandbox:
        grader = code.CodeGrader(sandbox, 4.0)
        assert grader.grade(problem, "def f(x): return x + x")[0] == "correct"
        verdict, detail = grader.grade(problem, "def f(x): return x")
        assert (verdict, detail[:11]) == ("wrong", "test 1 of 5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_point": "g"}, "HumanEval/0: the prompt does not define g"),
        ({"test": "def check(:"}, "HumanEval/0: the column 'test' is not Python"),
        ({"test": "x = 1"}, r"HumanEval/0: the column 'test' defines no check\(candidate\)"),
        ({"test": "def check(candidate): assert True"}, "HumanEval/0: the column 'test' calls its candidate nowhere"),
        ({"test": None}, "HumanEval/0: column 'test' is empty"),
    ],
)
def test_a_broken_row_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        humaneval.parse("test", rows(**change))


def test_real_file(benchmark_data: Path) -> None:
    problems = load(humaneval.BENCHMARK, "test", benchmark_data)
    assert len(problems) == 164
    assert [p.id for p in problems if "recorded" in p.tests] == [f"HumanEval/{n}" for n in (32, 38, 44, 50, 53)]
    plus = load(humaneval_plus.BENCHMARK, "test", benchmark_data)
    assert [p.tests["entry_point"] for p in problems] == [p.tests["entry_point"] for p in plus]
