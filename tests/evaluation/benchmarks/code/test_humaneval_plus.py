"""HumanEval+: the release's JSON inputs and the hub's inputs out of a Python test."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import humaneval_plus
from evaluation.loading import digest, load
from evaluation.records import Problem, RecordError

PROMPT = 'import math\n\ndef half(x):\n    return x / 2\n\ndef f(x):\n    """Add one; def f(x) is yours."""\n'
HUB_TEST = """
import numpy as np

def assertion(out, exp, atol):
    assert out == exp

def check(candidate):
    inputs = [[1], [-2.5]]
    results = [2, -1.5]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 1e-06)
"""


def rows(hub: bool = False, **changes: Any) -> list[dict[str, Any]]:
    made = []
    for number in range(164):
        row: dict[str, Any] = {
            "task_id": f"HumanEval/{number}",
            "prompt": PROMPT,
            "entry_point": "f",
            "canonical_solution": "    return x + 1\n",
        }
        row |= (
            {"test": HUB_TEST} if hub else {"base_input": [[1]], "plus_input": [[-2.5]], "atol": 1e-6, "test": "unused"}
        )
        made.append(row)
    made[0] |= changes
    return made


def test_both_forms_give_the_same_problems() -> None:
    problems = humaneval_plus.parse("test", rows())
    assert problems == humaneval_plus.parse("test", rows(hub=True))
    # The docstring names the function again: the preamble ends before the last line that defines it.
    assert problems[0].tests["inputs"] == [[1], [-2.5]]
    assert problems[0].tests["atol"] == 1e-6
    assert problems[0].gold == PROMPT + "    return x + 1\n"
    assert PROMPT.strip() in problems[0].prompt


def test_the_preamble_is_what_stands_before_the_function() -> None:
    assert humaneval_plus.parse("test", rows())[0].tests["preamble"] == "import math\n\ndef half(x):\n    return x / 2"


def test_a_problem_without_further_inputs() -> None:
    assert humaneval_plus.parse("test", rows(plus_input={}))[0].tests["inputs"] == [[1]]


def test_an_input_stands_once() -> None:
    inputs = humaneval_plus.parse("test", rows(base_input=[[1], [2]], plus_input=[[2], [1], [2.0]]))[0].tests["inputs"]
    assert json.dumps(inputs) == "[[1], [2], [2.0]]"  # 2 and 2.0 are two inputs


def test_the_root_finding_problem_is_checked_by_its_polynomial() -> None:
    tests = humaneval_plus.parse("test", rows())[32].tests
    assert (tests["check"], tests["atol"]) == ("polynomial_root", 1e-4)


@pytest.mark.parametrize(
    ("hub", "change", "message"),
    [
        (False, {"entry_point": "g"}, "HumanEval/0: the prompt does not define g"),
        (False, {"base_input": [1]}, "HumanEval/0: base_input is not a list of argument lists"),
        (False, {"base_input": [], "plus_input": []}, "HumanEval/0: no test inputs"),
        (False, {"atol": "0"}, "HumanEval/0: atol is '0'"),
        (False, {"canonical_solution": ""}, "HumanEval/0: column 'canonical_solution' is empty"),
        (True, {"test": "def check(:"}, "HumanEval/0: the column 'test' is not Python"),
        (True, {"test": "def check(candidate): pass"}, "HumanEval/0: the column 'test' holds no list `inputs`"),
        (True, {"test": "inputs = [[{1, 2}]]"}, "HumanEval/0: the inputs are not JSON"),
        (True, {"test": None}, "HumanEval/0: column 'test' is empty"),
        (True, {"test": "inputs = [[open('x')]]"}, "HumanEval/0: the inputs are not literals"),
    ],
)
def test_a_broken_row_is_named(hub: bool, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        humaneval_plus.parse("test", rows(hub, **change))


@pytest.mark.slow
def test_real_files(benchmark_data: Path) -> None:
    problems = load(humaneval_plus.BENCHMARK, "test", benchmark_data)
    assert len(problems) == 164
    assert sum(len(problem.tests["inputs"]) for problem in problems) > 100_000
    # The file in the hub's form, which writes no input twice, holds the same problems; smaller editions hold others.
    assert digest(edition(benchmark_data, "OriginFmt")) == digest(problems) == humaneval_plus.BENCHMARK.digest
    assert len({digest(edition(benchmark_data, name)) for name in ("OriginFmt", "Mini", "NoExtreme")}) == 3


def edition(benchmark_data: Path, name: str) -> list[Problem]:
    with gzip.open(benchmark_data / "humanevalplus" / f"HumanEvalPlus-{name}.jsonl.gz", "rt") as file:
        return humaneval_plus.parse("test", [json.loads(line) for line in file])
