"""Code: does the program compute what it should, in time?

`Problem.gold` is the complete reference program. `Problem.tests` is one of two JSON objects.

Asserts (MBPP, tiny_code)::

    {"entry_point": "f",                  # the name that the program must define
     "setup": "import math",              # run after the program, before the tests; may be ""
     "asserts": ["assert f(3) == 20"]}    # one assert statement each

Inputs (HumanEval+)::

    {"entry_point": "f",
     "preamble": "from typing import List",  # imports and helpers of the prompt, run before the program
     "inputs": [[3], [10]],                  # argument lists
     "atol": 0.0,                            # absolute tolerance for floats; 0: exact, but 1e-6 where all expected values are floats
     "check": "polynomial_root"}             # optional: the value must be a root of the polynomial in the first argument, within atol

The program never sees an expected value. `assert A == B` is taken apart: the side that calls the entry point is evaluated in the sandbox
and sent back, the other is a literal, or is evaluated in a sandbox beside the reference program; any other assert is evaluated to true or
false beside the program. Outputs for `inputs` are compared with those of the reference program, run in the same sandbox, once for each
problem. Values are compared as plain data (see `evaluation.sandbox.values`), so a class with an `__eq__` of its own gains nothing.

Time: a program has `timeout_s` CPU seconds; one that needs more is run again with four times what the reference takes, where that is more.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import reprlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from evaluation.graders.extraction import program
from evaluation.records import Problem, Verdict
from evaluation.sandbox import UNSENDABLE, Job, Outcome, Sandbox, SandboxError

VERSION = "1"
"""Part of every score's protocol; raise it when the same program may get another verdict."""
REFERENCE_LIMIT_S = 120.0
"""CPU seconds for a reference program; the slowest of MBPP and HumanEval+ takes about 10 on a slow core."""
REFERENCE_FACTOR = 4.0


class ReferenceFailed(RuntimeError):
    """The reference program or a test is not what the schema says: nothing can be graded by it."""


@dataclasses.dataclass(frozen=True)
class _Tests:
    """A problem's tests, taken apart. `expected` holds one value for each of the job's expressions or inputs."""

    sections: tuple[str, str]
    """Run before and after the program."""
    expressions: tuple[str, ...]
    expected: tuple[Any, ...]


class CodeGrader:
    """Grades programs; safe to use from several threads.

    Args:
        sandbox: where programs run.
        timeout_s: CPU seconds that every program has.
    """

    def __init__(self, sandbox: Sandbox, timeout_s: float) -> None:
        self.sandbox = sandbox
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._references: dict[tuple[str, str, str], Future[tuple[tuple[Any, ...], float]]] = {}

    def grade(self, problem: Problem, completion: str) -> tuple[Verdict, str | None, str]:
        """Verdict, the extracted program, and what went wrong."""
        source = program(completion, problem.tests["entry_point"])
        if source is None:
            return "no_answer", None, f"no complete code block defines {problem.tests['entry_point']}"
        try:
            verdict, detail = self._judge(problem, source)
        except (ReferenceFailed, SandboxError) as error:
            return "grader_error", source, str(error)
        return verdict, source, detail

    def _judge(self, problem: Problem, source: str) -> tuple[Verdict, str]:
        tests = self._tests(problem)
        outcome = self._run(problem, tests, source, self.timeout_s)
        if outcome.status == "limit":
            allowed = REFERENCE_FACTOR * self._reference(problem, tests)[1]
            if allowed > self.timeout_s:
                outcome = self._run(problem, tests, source, allowed)
        if outcome.status == "limit":
            return "timeout", outcome.detail
        expected = tests.expected if tests.expressions else self._reference(problem, tests)[0]
        for number, (value, wanted) in enumerate(zip(outcome.values, expected, strict=False), start=1):
            if not _accepts(problem.tests, number - 1, value, wanted):
                return "wrong", f"test {number} of {len(expected)}: {_short(value)} instead of {_short(wanted)}"
        if outcome.status != "done":
            return "wrong", f"test {len(outcome.values) + 1} of {len(expected)}: {outcome.detail}"
        if len(outcome.values) != len(expected):
            return "wrong", f"{len(outcome.values)} results for {len(expected)} tests"
        return "correct", ""

    def _run(self, problem: Problem, tests: _Tests, source: str, cpu_limit_s: float) -> Outcome:
        before, after = tests.sections
        sections = [section for section in (before, source, after) if section]
        if tests.expressions:
            return self.sandbox.run(Job(sections, expressions=tests.expressions), cpu_limit_s)
        return self.sandbox.run(Job(sections, entry_point=problem.tests["entry_point"], inputs=problem.tests["inputs"]), cpu_limit_s)

    def _reference(self, problem: Problem, tests: _Tests) -> tuple[tuple[Any, ...], float]:
        """Values and CPU seconds of the reference program on the tests; run once, also when several threads ask at the same time."""
        key = problem.benchmark, problem.id, problem.gold
        with self._lock:
            future = self._references.get(key)
            mine = future is None
            if future is None:
                future = self._references[key] = Future()
        if mine:
            try:
                outcome = self._run(problem, tests, problem.gold, REFERENCE_LIMIT_S)
                if outcome.status != "done":
                    raise ReferenceFailed(f"the reference program of {problem.id} fails: {outcome.detail}")
                if any(value is UNSENDABLE for value in outcome.values):
                    raise ReferenceFailed(f"the reference program of {problem.id} returns a value that cannot be compared")
                future.set_result((tuple(outcome.values), outcome.cpu_s))
            except BaseException as error:  # whatever it is, nobody may wait for ever
                future.set_exception(error)
                if not isinstance(error, ReferenceFailed):  # the next one may have better luck
                    with self._lock:
                        del self._references[key]
                raise
        return future.result()

    def _tests(self, problem: Problem) -> _Tests:
        tests = problem.tests
        if "inputs" in tests:
            return _Tests((tests.get("preamble", ""), ""), (), ())
        expressions: list[str] = []
        expected: list[Any] = []
        unknown: dict[int, str] = {}
        for place, statement in enumerate(tests["asserts"]):
            expression, literal, other = _take_apart(statement, tests["entry_point"])
            expressions.append(expression)
            expected.append(literal)
            if other is not None:
                unknown[place] = other
        if unknown:
            job = Job([part for part in (problem.gold, tests["setup"]) if part], expressions=list(unknown.values()))
            outcome = self.sandbox.run(job, REFERENCE_LIMIT_S)
            if outcome.status != "done":
                raise ReferenceFailed(f"the expected values of {problem.id} cannot be computed: {outcome.detail}")
            for place, value in zip(unknown, outcome.values, strict=True):
                expected[place] = value
        return _Tests(("", tests["setup"]), tuple(expressions), tuple(expected))


def _take_apart(statement: str, entry_point: str) -> tuple[str, Any, str | None]:
    """(expression to evaluate beside the program, expected value, expression whose value is the expected one or None)."""
    try:
        body = ast.parse(statement.strip()).body
    except SyntaxError as error:
        raise ReferenceFailed(f"not an assert: {statement!r}: {error}") from error
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise ReferenceFailed(f"not one assert statement: {statement!r}")
    test = body[0].test
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        left, right = test.left, test.comparators[0]
        if _mentions(right, entry_point) and not _mentions(left, entry_point):
            left, right = right, left
        if _mentions(left, entry_point) and not _mentions(right, entry_point):
            try:
                return ast.unparse(left), ast.literal_eval(right), None
            except ValueError:
                return ast.unparse(left), None, ast.unparse(right)
    return f"True if {ast.unparse(test)} else False", True, None


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))


def _accepts(tests: dict[str, Any], place: int, value: Any, expected: Any) -> bool:
    if tests.get("check") == "polynomial_root":
        return _is_root(tests["inputs"][place][0], value, tests["atol"])
    if value == expected:
        return True
    atol = tests.get("atol")
    if atol is None:  # asserts compare exactly
        return False
    if atol == 0 and _all_floats(expected):
        atol = 1e-6
    return atol > 0 and _close(value, expected, atol)


def _is_root(coefficients: Sequence[float], value: Any, atol: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        value = float(value)  # powers of a long integer would take for ever
        return bool(abs(sum(coefficient * value**power for power, coefficient in enumerate(coefficients))) <= atol)
    except OverflowError:
        return False


def _all_floats(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, list | tuple) and all(isinstance(item, float) for item in value))


def _close(value: Any, expected: Any, atol: float) -> bool:
    """Equal within atol + 1e-7 * |expected|, number by number, in sequences of the same length; what EvalPlus asks of numpy."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(_close(one, other, atol) for one, other in zip(value, expected, strict=True))
        )
    if not isinstance(expected, int | float) or not isinstance(value, int | float):
        return bool(value == expected)
    try:
        return value == expected or (math.isfinite(expected) and abs(value - expected) <= atol + 1e-7 * abs(expected))
    except OverflowError:  # an integer beyond the floats
        return False


class _Short(reprlib.Repr):
    """Texts of values for messages, bounded in length and depth, and in time: the digits of a long integer take quadratic time."""

    def repr_int(self, x: int, level: int) -> str:
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 200 else repr(x)


def _short(value: Any) -> str:
    text = _Short().repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
