"""Programs: right, wrong and slow. Every one of them really runs, in the sandbox."""

from pathlib import Path

import pytest

from evaluation.benchmarks import get
from evaluation.graders.code import CodeGrader
from evaluation.grading import Grader
from evaluation.loading import load
from evaluation.records import Problem
from evaluation.sandbox import Sandbox
from tests.evaluation.graders.cases import judge


@pytest.mark.parametrize(
    ("program", "verdict", "detail"),
    [
        ("def f(x): return x + x", "correct", ""),
        ("def f(x): return x + 3", "wrong", "test 2 of 2: 13 instead of 20"),
        ("def f(x): return y", "wrong", "test 1 of 2: NameError"),
        ("def f(x): return", "wrong", "test 1 of 2: None instead of 6"),
        ("def f(x) return", "wrong", "SyntaxError"),
        ("def f(x):\n    while True: pass", "timeout", "CPU time limit"),
        ("def f(x): return f(x)", "wrong", "RecursionError"),
        ("if __name__ == '__main__': 1 / 0\ndef f(x): return 2 * x", "correct", ""),
        (
            "from dataclasses import dataclass\n@dataclass\nclass A:\n    v: int\ndef f(x): return A(x).v * 2",
            "correct",
            "",
        ),
        ("import re, math, collections, itertools, heapq, typing, functools\ndef f(x): return 2 * x", "correct", ""),
        ("def f(x): print('x' * 10**7); return 2 * x", "correct", ""),
    ],
)
def test_verdicts(grader: Grader, program: str, verdict: str, detail: str) -> None:
    result = judge(grader, program)
    assert result.verdict == verdict
    assert detail in result.detail


def test_asserts_of_every_form(grader: Grader) -> None:
    gold = "import math\nclass A:\n    def __init__(self): self.v = 1\ndef f(x):\n    return x / 3"
    tests = {
        "entry_point": "f",
        "setup": "import math\ny = 3",
        "asserts": [
            "assert f(y) == 1",
            "assert 2.0 == f(6), 'message'",
            "assert math.isclose(f(1), 0.333, abs_tol=1e-3)",
            "assert not f(0)",
            "assert f(12) == len('abcd')",
            "assert f(3) != f(6)",
        ],
    }
    assert judge(grader, "def f(x): return x / 3", tests, gold).verdict == "correct"
    assert (
        judge(grader, "def f(x): return x / 3 if x != 12 else 5", tests, gold).detail == "test 5 of 6: 5 instead of 4"
    )
    assert (
        judge(grader, "def f(x): return x / 3 if x else 1", tests, gold).detail == "test 4 of 6: True instead of False"
    )


def test_an_assert_that_calls_within_a_loop_of_its_own_is_the_graders_error(grader: Grader) -> None:
    tests = {"entry_point": "f", "setup": "", "asserts": ["assert all(f(i) for i in range(1, 3))"]}
    assert judge(grader, "def f(x): return 2 * x", tests).verdict == "grader_error"


@pytest.mark.slow
def test_a_slow_reference_gives_more_time() -> None:
    slow = (
        "import time\ndef f(x):\n    end = time.process_time() + 1.1\n"
        "    while time.process_time() < end: pass\n    return x * 2"
    )
    tests = {"entry_point": "f", "setup": "", "asserts": ["assert f(3) == 6"]}
    with Grader(workers=1, code_timeout_s=1.0) as grader:
        assert judge(grader, slow, tests, gold=slow).verdict == "correct"
        assert judge(grader, slow, tests).verdict == "timeout"
        assert judge(grader, slow.replace("1.1", "60"), tests, gold=slow).verdict == "timeout"


def test_a_broken_reference_or_assert_is_the_graders_error(grader: Grader) -> None:
    inputs = {"entry_point": "f", "preamble": "", "inputs": [[1]], "atol": 0.0}
    assert judge(grader, "def f(x): return 2", inputs, gold="def f(x): return 1 / 0").verdict == "grader_error"
    assert judge(grader, "def f(x): return 2", inputs, gold="def f(x): return f").verdict == "grader_error"
    assert (
        judge(grader, "def f(x): return 2", {"entry_point": "f", "setup": "", "asserts": ["f(3) == 6"]}).verdict
        == "grader_error"
    )
    for gold in ("[A()]", "{'a': (A(), 1)}", "[1, [A()] * 10**5]"):  # a digest would hide what it is of
        result = judge(grader, "def f(x): return [object()]", inputs, gold=f"class A: pass\ndef f(x): return {gold}")
        assert (result.verdict, "cannot be compared" in result.detail) == ("grader_error", True)
    unknown = {"entry_point": "f", "setup": "class A: pass", "asserts": ["assert f(3) == [A()]"]}
    assert judge(grader, "def f(x): return [object()]", unknown).verdict == "grader_error"


@pytest.mark.parametrize(
    "rest", ["isclose(f(3), 6)", "abs(f(3) - 7) < 0.1", "abs(f(3) - tolerance) < 1", "f(3)[0] > 5"]
)
def test_an_assert_that_the_reference_fails_is_the_graders_error(grader: Grader, rest: str) -> None:
    """Such as one whose setup lacks a name; it is not held against programs."""
    tests = {"entry_point": "f", "setup": "", "asserts": ["assert f(1) == 2", f"assert {rest}"]}
    result = judge(grader, "def f(x): return x + x", tests)
    assert result.verdict == "grader_error"
    assert "the reference program of 1 fails an assert" in result.detail
    assert judge(grader, "def f(x): return 3", tests).verdict == "wrong"  # by the assert that is sound


def test_an_assert_that_only_the_program_fails_stays_wrong(grader: Grader) -> None:
    tests = {
        "entry_point": "f",
        "setup": "from math import isclose",
        "asserts": ["assert isclose(f(3), 6)", "assert 1 <= f(1) < 3"],
    }
    assert judge(grader, "def f(x): return 'a'", tests).verdict == "wrong"
    assert judge(grader, "def f(x): return x", tests).verdict == "wrong"
    assert judge(grader, "def f(x): return 2.0 * x", tests).verdict == "correct"


@pytest.mark.parametrize(
    ("gold", "candidate", "atol", "verdict"),
    [
        ("x + 0.5", "x + 0.5 + 1e-9", 0.0, "correct"),  # all floats: 1e-6
        ("x + 0.5", "x + 0.5001", 0.0, "wrong"),
        ("x + 0.5", "x + 0.5001", 1e-2, "correct"),
        ("x", "x + 1e-9", 0.0, "wrong"),
        ("[1.0, 2.0]", "[1.0, 2.0 + 1e-9]", 0.0, "correct"),
        ("[1.0, 2.0]", "[1.0]", 0.0, "wrong"),
        ("[1.0, 2.0]", "1.0", 1.0, "wrong"),  # numpy would broadcast
        ("[1, 2]", "(1, 2)", 0.0, "wrong"),
        ("1", "1.0", 0.0, "correct"),
        ("True", "1", 0.0, "correct"),
        ("'a'", "b'a'", 0.0, "wrong"),
        ("{'a': {1, 2}}", "{'a': {2, 1}}", 0.0, "correct"),
        ("{1: 2}", "__import__('collections').Counter({1: 2})", 0.0, "correct"),
        ("float('inf')", "float('inf')", 0.0, "correct"),
        ("float('inf')", "1e308", 1.0, "wrong"),
        ("1.5", "float('nan')", 1.0, "wrong"),
        ("1.5", "10**400", 1.0, "wrong"),
        ("10**100000", "10**100000", 0.0, "correct"),
        ("10**100000", "10**100000 + 1", 0.0, "wrong"),
        pytest.param("['ab'] * 10**6", "['ab'] * 10**6", 0.0, "correct", marks=pytest.mark.slow),  # sent as digests
        pytest.param("[2.0] * 10**6", "[2] * 10**6", 0.0, "correct", marks=pytest.mark.slow),
        pytest.param("['ab'] * 10**6", "['ab'] * (10**6 - 1) + ['ac']", 0.0, "wrong", marks=pytest.mark.slow),
        pytest.param("set(range(10**6))", "set(reversed(range(10**6)))", 0.0, "correct", marks=pytest.mark.slow),
        ("float('nan')", "float('nan')", 0.0, "correct"),
        ("float('nan')", "0.0", 1.0, "wrong"),
        ("[1, {'a': float('nan')}]", "[1, {'a': float('nan')}]", 0.0, "correct"),
        ("{'a': float('nan'), 'b': 1.0}", "{'b': 1.001, 'a': float('nan')}", 1e-2, "correct"),
        ("{'a': 1.5, 'b': 2.5}", "{'b': 2.5 + 1e-9, 'a': 1.5}", 0.0, "correct"),  # all floats: 1e-6
        ("{'a': 1.5, 'b': 2.5}", "{'b': 2.6, 'a': 1.5}", 1e-2, "wrong"),
        ("{'a': 1.5}", "{'a': 1.5, 'b': 1.5}", 1e-2, "wrong"),
        ("{'a': [1.5, (2.5,)]}", "{'a': [1.501, (2.5,)]}", 1e-2, "correct"),
        ("{1: 'a'}", "{1.0: 'a'}", 1e-2, "correct"),
    ],
)
def test_comparison_with_the_reference(grader: Grader, gold: str, candidate: str, atol: float, verdict: str) -> None:
    tests = {"entry_point": "f", "preamble": "", "inputs": [[1]], "atol": atol}
    assert judge(grader, f"def f(x): return {candidate}", tests, f"def f(x): return {gold}").verdict == verdict


def test_inputs_are_fresh_and_the_preamble_is_there(grader: Grader) -> None:
    tests = {"entry_point": "f", "preamble": "from math import floor", "inputs": [[[1, 2]], [[1, 2]]], "atol": 0.0}
    gold = "from math import floor\ndef f(a): return floor(sum(a))"
    assert judge(grader, "def f(a):\n    a.append(0)\n    return floor(sum(a))", tests, gold).verdict == "correct"
    assert (
        judge(grader, "from __future__ import annotations\ndef f(a: X): return sum(a)", tests, gold).verdict
        == "correct"
    )


def test_any_root_of_the_polynomial_is_right(grader: Grader) -> None:
    tests = {
        "entry_point": "f",
        "preamble": "",
        "inputs": [[[-6, 1, 1]]],
        "atol": 1e-4,
        "check": "polynomial_root",
    }  # (x - 2)(x + 3)
    for value, verdict in (
        ("2", "correct"),
        ("-3.000001", "correct"),
        ("1", "wrong"),
        ("True", "wrong"),
        ("'2'", "wrong"),
        ("1e300", "wrong"),
    ):
        assert judge(grader, f"def f(a): return {value}", tests, "def f(a): return 2").verdict == verdict


def canonical(name: str, folder: Path, step: int) -> list[str]:
    problems = load(get(name), "test", folder)[::step]
    with Grader(workers=2) as grader:
        graded = grader.grade([(p, f"Here it is:\n```python\n{p.gold}\n```\n", "stop") for p in problems])
    return [f"{p.id}: {result}" for p, result in zip(problems, graded, strict=True) if result.verdict != "correct"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "humaneval_plus", "mbpp", "mbpp_sanitized"])
def test_all_reference_programs_pass(benchmark_data: Path, name: str) -> None:
    """Every canonical solution of every problem; HumanEval+ takes about 50 s on two busy cores, the others about 10."""
    assert canonical(name, benchmark_data, 1) == []


@pytest.mark.slow
def test_changed_reference_programs_fail(benchmark_data: Path) -> None:
    """The reference program with `None` for its result: no test is so weak that nothing passes it."""
    problems = load(get("mbpp"), "test", benchmark_data)[::5] + load(get("humaneval_plus"), "test", benchmark_data)[::8]
    broken = [
        f"{p.gold}\n_right = {p.tests['entry_point']}\ndef {p.tests['entry_point']}(*a): _right(*a); return None"
        for p in problems
    ]
    with Grader(workers=2) as grader:
        graded = grader.grade(
            [(p, f"```python\n{text}\n```", "stop") for p, text in zip(problems, broken, strict=True)]
        )
    # MBPP has tests that expect None; those may pass.
    passing = [p for p, result in zip(problems, graded, strict=True) if result.verdict == "correct"]
    assert all("None" in str(p.tests["asserts"]) for p in passing)
    assert len(passing) <= 2


@pytest.mark.slow
def test_memory_follows_the_reference() -> None:
    """Where the reference needs more than programs have, so may they; where it does not, running out of it is wrong."""
    hungry = "def f(x):\n    return len(bytearray(700 * 2**20))"
    frugal = "def f(x):\n    return 700 * 2**20"
    tests = {"entry_point": "f", "inputs": [[1]], "atol": 0.0}
    with Sandbox(memory_mib=512) as sandbox:
        grader = CodeGrader(sandbox, 10.0)
        for gold, source, verdict in (
            (hungry, hungry, "correct"),
            (hungry, frugal, "correct"),
            (frugal, hungry, "wrong"),
        ):
            problem = Problem(f"{gold}{source}", "b", "code", "", gold, tests)
            assert grader.grade(problem, source)[0] == verdict


def test_asserts_need_no_setup() -> None:
    problem = Problem(
        "1", "test", "code", "?", "def f(x):\n    return 2 * x", {"entry_point": "f", "asserts": ["assert f(3) == 6"]}
    )
    with Sandbox() as sandbox:
        grader = CodeGrader(sandbox, 10.0)
        assert grader.grade(problem, problem.gold)[0] == "correct"
        assert grader.grade(problem, "def f(x):\n    return x")[0] == "wrong"
