"""Whatever a completion holds, it gets a verdict: nothing raises in the grader, and nothing takes it long."""

import time

import pytest

from evaluation.graders import code
from evaluation.graders.extraction import program
from evaluation.grading import Grader
from evaluation.records import Problem
from evaluation.sandbox import Job, ProgramResult, Sandbox, SandboxError

TESTS = {"entry_point": "f", "setup": "", "asserts": ["assert f(3) == 6"]}
INPUTS = {"entry_point": "f", "preamble": "", "inputs": [[3]], "atol": 0.0}
ROOT = {"entry_point": "f", "preamble": "", "inputs": [[[-6, 1, 1] * 20]], "atol": 1e-4, "check": "polynomial_root"}
GOLD = "def f(x):\n    return 6"


@pytest.mark.parametrize("tests", [TESTS, INPUTS, ROOT], ids=["asserts", "inputs", "root"])
@pytest.mark.parametrize(
    "value",
    [
        "{1: 10**5000}",
        "[{'a': (10**5000,)}]",
        "10**60000",
        "float('nan')",
        "1e308",
        "'\\ud800'",
        "{'\\ud800': 1}",
        "nested(480)",
        "object()",
    ],
)
def test_every_value_has_a_verdict_and_a_message(grader: Grader, tests: dict[str, object], value: str) -> None:
    source = f"def nested(n): return [nested(n - 1)] if n else 0\ndef f(x): return {value}"
    result = grader.grade([(Problem("1", "test", "code", "?", GOLD, tests), f"```python\n{source}\n```", "stop")])[0]
    assert result.verdict == "wrong"
    assert 0 < len(result.detail.encode("utf-8")) < 400


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" * 16_000,
        "```\n" * 16_001,
        "```python\ndef f(x):\n" * 8_000,
        "def f(x): return " + "-" * 200_000 + "1",
        "def f(x): return " + "(" * 20_000,
        "def f(x): return x" + ".a" * 50_000,
        " \t" * 100_000 + "def f",
    ],
    ids=["fences that never close", "bare fences", "unclosed programs", "signs", "parentheses", "attributes", "blanks"],
)
def test_degenerate_completions_are_read_in_one_pass(text: str) -> None:
    start = time.perf_counter()
    assert program(text, "f") is None
    assert time.perf_counter() - start < 2.0


def test_a_reference_that_could_not_be_run_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed was the machine, for a moment; a reference that is itself wrong stays so."""
    with Sandbox() as sandbox:
        judge = code.CodeGrader(sandbox, 1.0)
        problem = Problem("1", "test", "code", "?", GOLD, INPUTS)
        run, runs = sandbox.run, 0

        def fail_once(job: Job, cpu_limit_s: float, memory_mib: int) -> ProgramResult:
            nonlocal runs
            runs += 1
            if runs == 1:  # the reference, whose values the inputs need
                raise SandboxError("no memory")
            return run(job, cpu_limit_s, memory_mib)

        monkeypatch.setattr(sandbox, "run", fail_once)
        assert judge.grade(problem, GOLD) == ("grader_error", "no memory")
        assert judge.grade(problem, GOLD)[0] == "correct"
        assert judge.grade(problem, GOLD)[0] == "correct"
        assert runs == 4  # the reference's values are kept
