"""MBPP: the test split, CRLF, set-up code and imports of the tests."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import mbpp
from evaluation.graders import code
from evaluation.loading import load
from evaluation.records import Problem, RecordError
from evaluation.sandbox import Sandbox


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Five hundred and two rows, with ids from 10; `changes` to that of task 11."""
    made = [
        {
            "task_id": i,
            "text": "Add one.",
            "code": "def g(x):\r\n\treturn x+1",
            "test_list": ["assert g (1) == 2"],
            "test_setup_code": "",
        }
        for i in range(10, 512)
    ]
    made[1] |= changes
    return made


def test_only_the_test_split_is_taken_and_crlf_goes() -> None:
    problems = mbpp.parse("test", reversed(rows()))
    assert [problems[0].id, problems[-1].id, len(problems)] == ["11", "510", 500]
    assert problems[0].gold == "def g(x):\n\treturn x+1"
    assert problems[0].tests == {"entry_point": "g", "setup": "", "asserts": ["assert g (1) == 2"]}
    assert problems[0].prompt.startswith("Add one.\n\nYour code should pass these tests:\n\nassert g (1) == 2\n\nPut ")


def test_the_entry_point_is_what_all_asserts_call() -> None:
    program = "def helper(x): return x\ndef main(x): return helper(x)"
    tests = ["assert main(helper(1)) == 1", "assert main(2) == 2"]
    assert mbpp.parse("test", rows(code=program, test_list=tests))[0].tests["entry_point"] == "main"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_list": []}, "mbpp task 11: test_list is not a list of asserts"),
        ({"code": "def h(): pass"}, "mbpp task 11: the asserts do not all call one function"),
        ({"code": "def g(:"}, "mbpp task 11: the program or an assert does not parse"),
        ({"text": None}, "mbpp task 11: column 'text' is empty"),
        ({"task_id": "11"}, "mbpp, row 2: task_id is '11', not an integer"),
        ({"task_id": 12}, "the problem 12 occurs twice"),
        ({"task_id": 600}, "499 problems, the complete set has 500"),
    ],
)
def test_a_broken_row_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        mbpp.parse("test", rows(**change))


def verdict(problem: Problem) -> str:
    with Sandbox() as sandbox:
        return code.CodeGrader(sandbox, 4.0).grade(problem, problem.gold)[0]


def test_setup_code_runs_after_the_program_and_test_imports_are_kept() -> None:
    program = "class Node:\n    def __init__(self, v):\n        self.v = v\ndef depth(n):\n    return n.v"
    setup = mbpp.parse(
        "test", rows(code=program, test_list=["assert depth(root) == 3"], test_setup_code="root = Node(3) \r\n")
    )[0]
    assert verdict(setup) == "correct"
    close = mbpp.parse("test", rows(test_list=["assert math.isclose(g(0.1), 1.1)"], test_imports=["import math"]))[0]
    assert verdict(close) == "correct"


def test_real_file(benchmark_data: Path) -> None:
    problems = load(mbpp.BENCHMARK, "test", benchmark_data)
    assert len(problems) == 500
    with gzip.open(
        benchmark_data / "mbpp" / "mbpp_test_500.jsonl.gz", "rt"
    ) as file:  # another copy, of the test split alone
        copy = [json.loads(line) for line in file]
    copied = mbpp.parse(
        "test", [row | {"test_list": row["test"]} for row in copy]
    )  # it lacks the set-up code of task 367
    assert [(p.id, p.prompt, p.gold, p.tests["asserts"]) for p in copied] == [
        (p.id, p.prompt, p.gold, p.tests["asserts"]) for p in problems
    ]
    assert [p.id for p in problems if p.tests["setup"]] == ["367"]


def test_sanitized_set(benchmark_data: Path) -> None:
    problems = load(mbpp.SANITIZED_BENCHMARK, "test", benchmark_data)
    assert len(problems) == 427
    assert sum(int(p.id) in mbpp.TEST_IDS for p in problems) == 257
    assert any(p.tests["setup"] == "import math" for p in problems)
    with pytest.raises(RecordError, match="mbpp_sanitized: 1 problems, the complete set has 427"):
        mbpp.parse_sanitized(
            "test", [{"task_id": 2, "prompt": "Add.", "code": "def g(x): return x", "test_list": ["assert g(1) == 1"]}]
        )
