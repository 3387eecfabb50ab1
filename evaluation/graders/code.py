"""Code: does the program compute what it should, in time?

`Problem.gold` is the complete reference program. `Problem.tests` is one of two JSON objects.

Asserts (HumanEval, MBPP, tiny_code)::

    {"entry_point": "f",                  # the name that the program must define
     "preamble": "import re",             # optional: run before the program
     "setup": "import math",              # run after the program, before the tests; may be ""
     "asserts": ["assert f(3) == 20"]}    # one assert statement each

Inputs (HumanEval+, MBPP+)::

    {"entry_point": "f",
     "preamble": "from typing import List",  # imports and helpers of the prompt, run before the program
     "inputs": [[3], [10]],                  # argument lists; or
     "typed_inputs": ["l", ["l", "i3"]],     # the same with tuples, sets and complex numbers (see `evaluation.sandbox.values`); or
     "recorded": "def check(candidate): ...",  # a test: the inputs are what it calls the reference program with
     "atol": 0.0,                            # absolute tolerance for floats; 0: exact, but 1e-6 where all expected values are floats
     "check": "polynomial_root"}             # optional: the value must be a root of the polynomial in the first argument, within atol;
                                             # "same_set": results are compared as sets; "not_none": only whether there is a result

The program never sees an expected value. `assert A == B` is taken apart: the side that calls the entry point is evaluated in the
sandbox and sent back, the other is a literal, or is evaluated in a sandbox beside the reference program. Of any other assert, such as
`assert isclose(f(3), 9.42)`, the calls of the entry point are evaluated beside the program, and the rest, with the values that came
back in their places, in a sandbox of its own beside the reference program. Outputs for `inputs` are compared with those of the
reference program, run in the same sandbox, once for each problem. Values are compared as plain data (see `evaluation.sandbox.values`),
so a class with an `__eq__` of its own gains nothing, and nan is nan. A reference program that fails an assert which is no equation, or
returns something that is no plain data, is the grader's error.

Time: a program has `timeout_s` CPU seconds, or four times what the reference takes, where that is more.
Memory: where the reference needs more than usual, programs that need it have four times as much, one at a time.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from evaluation.records import Problem, Verdict
from evaluation.sandbox import Job, ProgramResult, Sandbox, SandboxError
from evaluation.sandbox.comparison import Expected, is_plain, is_root, short
from evaluation.sandbox.values import MalformedValue, decode, unpack, write

VERSION = "5"
"""Part of every score's protocol; raise it when the same program may get another verdict."""
REFERENCE_LIMIT_S = 120.0
"""CPU seconds for a reference program; the slowest of MBPP and HumanEval+ takes about 10 on a slow core."""
REFERENCE_FACTOR = 4.0
MEMORY_FACTOR = 4
"""A reference program that does not fit into a program's memory gets this times as much, and then so do the programs."""


class ReferenceFailed(RuntimeError):
    """The reference program or a test is not what the schema says: nothing can be graded by it."""


@dataclasses.dataclass(frozen=True)
class _Assert:
    """One assert, taken apart.

    Attributes:
        expressions: what is evaluated beside the program.
        expected: what the one expression has to be; without meaning where `rest` is set.
        rest: source of a function of the expressions' values, evaluated beside the reference program, that says whether the assert holds.
    """

    expressions: tuple[str, ...]
    expected: Expected | None = None
    rest: str | None = None


@dataclasses.dataclass(frozen=True)
class _Tests:
    """A problem's tests, made ready to run: asserts or inputs."""

    before: str
    after: str
    asserts: tuple[_Assert, ...] = ()
    inputs: Sequence[Sequence[Any]] = ()
    entry_point: str | None = None


@dataclasses.dataclass(frozen=True)
class _Reference:
    """What the reference program gives on a problem's tests, its CPU seconds, and whether it needed more memory than programs have."""

    values: tuple[Expected, ...]
    cpu_s: float
    large: bool


class _Once:
    """Results by key, each computed once, also when several threads ask at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[tuple[str, ...], Future[Any]] = {}

    def get(self, key: tuple[str, ...], compute: Callable[[], Any]) -> Any:
        """The result of `compute`. A `ReferenceFailed` is kept as well; after any other error the next one may have better luck."""
        with self._lock:
            future = self._futures.get(key)
            mine = future is None
            if future is None:
                future = self._futures[key] = Future()
        if mine:
            try:
                future.set_result(compute())
            except BaseException as error:  # whatever it is, nobody may wait for ever
                future.set_exception(error)
                if not isinstance(error, ReferenceFailed):
                    with self._lock:
                        del self._futures[key]
                raise
        return future.result()


class CodeGrader:
    """Grades programs; safe to use from several threads.

    Args:
        sandbox: where programs run.
        timeout_s: CPU seconds that every program has.
    """

    def __init__(self, sandbox: Sandbox, timeout_s: float) -> None:
        self.sandbox = sandbox
        self.timeout_s = timeout_s
        self._prepared, self._references, self._failing = _Once(), _Once(), _Once()
        self._much_memory = threading.Lock()
        """Programs with more memory than usual run one at a time, or the machine's would not do."""

    def grade(self, problem: Problem, source: str) -> tuple[Verdict, str]:
        """Verdict on a program, and what went wrong."""
        try:
            return self._judge(problem, source)
        except (ReferenceFailed, SandboxError) as error:
            return "grader_error", str(error)

    def expected_cpu_s(self, problem: Problem) -> float | None:
        """CPU seconds of the reference program where its values are needed, which it computes if need be; None where nothing is known."""
        try:
            tests, key = self._tests(problem)
            return None if tests.asserts else self._reference(problem, tests, key).cpu_s
        except (ReferenceFailed, SandboxError):
            return None  # every verdict on the problem says so

    def _tests(self, problem: Problem) -> tuple[_Tests, tuple[str, ...]]:
        """The problem's tests made ready, and what they are known by."""
        # Not the inputs, which may be megabytes: of one problem of one benchmark they are always the same.
        parts = (problem.tests.get(part) for part in ("asserts", "setup", "check"))
        key = problem.benchmark, problem.id, problem.gold, *map(str, parts)
        tests: _Tests = self._prepared.get(key, lambda: self._prepare(problem))
        return tests, key

    def _reference(self, problem: Problem, tests: _Tests, key: tuple[str, ...]) -> _Reference:
        found: _Reference = self._references.get(key, lambda: self._run_reference(problem, tests))
        return found

    def _judge(self, problem: Problem, source: str) -> tuple[Verdict, str]:
        tests, key = self._tests(problem)
        if tests.asserts:
            outcome = self._run(tests, source, self.timeout_s)
            if outcome.status == "limit" or _out_of_memory(outcome):
                needed = self._reference(problem, tests, key)
                allowed = max(self.timeout_s, REFERENCE_FACTOR * needed.cpu_s)
                if allowed > self.timeout_s or needed.large:
                    outcome = self._run(tests, source, allowed, large=needed.large)
            return (
                ("timeout", outcome.detail)
                if outcome.status == "limit"
                else self._check_asserts(problem, tests, outcome, key)
            )
        # The reference's values are needed anyway: with its limits known first, no program is run twice.
        needed = self._reference(problem, tests, key)
        outcome = self._run(tests, source, max(self.timeout_s, REFERENCE_FACTOR * needed.cpu_s), large=needed.large)
        if outcome.status == "limit":
            return "timeout", outcome.detail
        for number, (text, wanted) in enumerate(zip(outcome.texts, needed.values, strict=False), start=1):
            if not _accepts(problem.tests, tests.inputs[number - 1], text, wanted):
                return "wrong", f"test {number} of {len(needed.values)}: {short(text)} instead of {short(wanted.text)}"
        return _unfinished(outcome, len(outcome.texts), len(needed.values), len(needed.values)) or ("correct", "")

    def _check_asserts(
        self, problem: Problem, tests: _Tests, outcome: ProgramResult, key: tuple[str, ...]
    ) -> tuple[Verdict, str]:
        texts, total = iter(outcome.texts), len(tests.asserts)
        values: dict[int, list[Any]] = {}
        shown: dict[int, str] = {}
        for number, test in enumerate(tests.asserts):
            got = list(itertools.islice(texts, len(test.expressions)))
            if len(got) < len(test.expressions):
                return _unfinished(outcome, number, total, sum(len(t.expressions) for t in tests.asserts)) or (
                    "wrong",
                    "results are missing",
                )
            if test.expected is None:
                try:
                    values[number] = [unpack(text) for text in got]
                except MalformedValue as error:
                    return "wrong", f"test {number + 1} of {total}: {error}"
                shown[number] = ", ".join(map(short, got))
                if not all(map(is_plain, values[number])):
                    return "wrong", f"test {number + 1} of {total}: {shown[number]}"
            elif not test.expected.equals(got[0]):
                return "wrong", f"test {number + 1} of {total}: {short(got[0])} instead of {short(test.expected.text)}"
        if next(texts, None) is not None:
            return "wrong", f"more results than the {total} tests have"
        failed = self._first_failed(problem, tests, values)
        if failed is None:
            return "correct", ""
        number, detail = failed
        if number in self._failing.get(key, lambda: self._failing_of_reference(problem, tests)):
            raise ReferenceFailed(
                f"the reference program of {problem.id} fails an assert: {problem.tests['asserts'][number]}: {detail}"
            )
        return "wrong", f"not so for {shown[number]}: {tests.asserts[number].rest}" + (f": {detail}" if detail else "")

    def _first_failed(self, problem: Problem, tests: _Tests, values: dict[int, list[Any]]) -> tuple[int, str] | None:
        """The first of the asserts that are no equations that does not hold for the values, and how evaluating it failed, if it did. They
        are evaluated beside the reference program."""
        if not values:
            return None
        held = f"_rests = [{', '.join(str(test.rest) for test in tests.asserts)}]\n"
        held += "def _holds(number, values): return bool(_rests[number](*values))"
        job = Job(
            [part for part in (problem.gold, tests.after, held) if part],
            entry_point="_holds",
            inputs=list(values.items()),
        )
        outcome = self.sandbox.run(job, self.timeout_s)
        for number, holds in itertools.zip_longest(values, outcome.texts):
            if holds != "true":
                return number, outcome.detail if holds is None else ""
        return None

    def _failing_of_reference(self, problem: Problem, tests: _Tests) -> set[int]:
        """The asserts that are no equations that do not hold for the reference program itself."""
        outcome = self._run(tests, problem.gold, REFERENCE_LIMIT_S)
        if outcome.status != "done":
            raise ReferenceFailed(f"the reference program of {problem.id} fails: {outcome.detail}")
        failing, texts = set(), iter(outcome.texts)
        for number, test in enumerate(tests.asserts):
            got = list(itertools.islice(texts, len(test.expressions)))
            if test.rest is None:
                continue
            try:
                values = [unpack(text) for text in got]
            except MalformedValue:
                failing.add(number)
                continue
            if not all(map(is_plain, values)) or self._first_failed(problem, tests, {number: values}) is not None:
                failing.add(number)
        return failing

    def _run(self, tests: _Tests, source: str, cpu_limit_s: float, *, large: bool = False) -> ProgramResult:
        if large:
            with self._much_memory:
                return self._run_with(tests, source, cpu_limit_s, MEMORY_FACTOR * self.sandbox.memory_mib)
        return self._run_with(tests, source, cpu_limit_s, self.sandbox.memory_mib)

    def _run_with(self, tests: _Tests, source: str, cpu_limit_s: float, memory_mib: int) -> ProgramResult:
        sections = [section for section in (tests.before, source, tests.after) if section]
        if tests.asserts:
            job = Job(sections, expressions=[e for test in tests.asserts for e in test.expressions])
        else:
            job = Job(sections, entry_point=tests.entry_point, inputs=tests.inputs)
        return self.sandbox.run(job, cpu_limit_s, memory_mib)

    def _run_reference(self, problem: Problem, tests: _Tests) -> _Reference:
        """The reference program on the tests."""
        outcome = self._run(tests, problem.gold, REFERENCE_LIMIT_S)
        large = _out_of_memory(outcome)
        if large:
            outcome = self._run(tests, problem.gold, REFERENCE_LIMIT_S, large=True)
        if outcome.status != "done":
            raise ReferenceFailed(f"the reference program of {problem.id} fails: {outcome.detail}")
        return _Reference(tuple(_expected(problem, text) for text in outcome.texts), outcome.cpu_s, large)

    def _prepare(self, problem: Problem) -> _Tests:
        tests, before = problem.tests, problem.tests.get("preamble", "")
        entry_point = tests["entry_point"]
        if "asserts" in tests:
            return _Tests(before, tests.get("setup", ""), self._with_expected_values(problem))
        if "recorded" in tests:
            inputs = self._record(problem)
        else:
            inputs = decode(tests["typed_inputs"]) if "typed_inputs" in tests else tests["inputs"]
        if tests.get("check") == "not_none":
            return _Tests(
                before,
                f"def _there_is_one(*arguments): return {entry_point}(*arguments) is not None",
                (),
                inputs,
                "_there_is_one",
            )
        return _Tests(before, "", (), inputs, entry_point)

    def _with_expected_values(self, problem: Problem) -> tuple[_Assert, ...]:
        """The asserts taken apart; expected values that are no literals come from the reference program."""
        taken = [_take_apart(statement, problem.tests["entry_point"]) for statement in problem.tests["asserts"]]
        unknown = [other for _, other in taken if other is not None]
        texts = iter(self._beside_reference(problem, [problem.tests.get("setup", "")], unknown) if unknown else [])
        return tuple(
            test if other is None else dataclasses.replace(test, expected=_expected(problem, next(texts)))
            for test, other in taken
        )

    def _record(self, problem: Problem) -> list[list[Any]]:
        """What the test calls its candidate with when that is the reference program."""
        name = problem.tests["entry_point"]
        recorder = (
            "import copy as _copy, random as _random\n_random.seed(0)\n_calls = []\n"
            f"def _candidate(*arguments):\n    _calls.append(list(_copy.deepcopy(arguments)))\n    return {name}(*arguments)\n"
            "check(_candidate)"
        )
        [calls] = self._beside_reference(problem, [problem.tests["recorded"], recorder], ["_calls"])
        try:
            inputs = unpack(calls)
        except MalformedValue as error:
            raise ReferenceFailed(f"the inputs of {problem.id} cannot be recorded: {error}") from error
        if not isinstance(inputs, list) or not is_plain(inputs):
            raise ReferenceFailed(f"the inputs of {problem.id} cannot be recorded: {short(calls)}")
        return inputs

    def _beside_reference(self, problem: Problem, sections: list[str], expressions: list[str]) -> list[str]:
        job = Job([part for part in (problem.gold, *sections) if part], expressions=expressions)
        outcome = self.sandbox.run(job, REFERENCE_LIMIT_S)
        if outcome.status != "done":
            raise ReferenceFailed(f"the expected values of {problem.id} cannot be computed: {outcome.detail}")
        return outcome.texts


def _expected(problem: Problem, text: str) -> Expected:
    try:
        return Expected(text)
    except MalformedValue as error:
        raise ReferenceFailed(f"the reference program of {problem.id} returns {error}") from error


def _out_of_memory(outcome: ProgramResult) -> bool:
    return outcome.status == "raised" and outcome.detail.startswith("MemoryError")


def _unfinished(outcome: ProgramResult, passed: int, tests: int, values: int) -> tuple[Verdict, str] | None:
    """The verdict on a program that did not get to its end; None for one that did."""
    if outcome.status != "done":
        return "wrong", f"test {min(passed + 1, tests)} of {tests}: {outcome.detail}"
    if len(outcome.texts) != values:
        return "wrong", f"{len(outcome.texts)} results for {values} tests"
    return None


def _take_apart(statement: str, entry_point: str) -> tuple[_Assert, str | None]:
    """The assert, and the expression whose value is the expected one, or None where that is known."""
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
                return _Assert((ast.unparse(left),), Expected(write(ast.literal_eval(right)))), None
            except (ValueError, TypeError):
                return _Assert((ast.unparse(left),)), ast.unparse(right)
    bare = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else test
    if isinstance(bare, ast.Call) and isinstance(bare.func, ast.Name) and bare.func.id == entry_point:
        # What counts is whether it is true; a match object could not be sent back.
        return _Assert((f"True if {ast.unparse(bare)} else False",), Expected(write(bare is test))), None
    holes = _Holes(entry_point)
    rest = holes.visit(test)
    if not holes.calls or _mentions(rest, entry_point):
        raise ReferenceFailed(f"an assert that cannot be taken apart into calls of {entry_point}: {statement!r}")
    names = ", ".join(f"_value_{place}" for place in range(len(holes.calls)))
    return _Assert(tuple(holes.calls), rest=f"lambda {names}: {ast.unparse(rest)}"), None


class _Holes(ast.NodeTransformer):
    """Puts a name in the place of each call of the entry point, and keeps the calls."""

    def __init__(self, entry_point: str) -> None:
        self.entry_point = entry_point
        self.calls: list[str] = []

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if not (isinstance(node.func, ast.Name) and node.func.id == self.entry_point):
            self.generic_visit(node)
            return node
        self.calls.append(ast.unparse(node))
        return ast.Name(f"_value_{len(self.calls) - 1}", ast.Load())

    def _keep(self, node: ast.expr) -> ast.expr:
        return node  # a call in there uses names that exist only in there

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_Lambda = _keep


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))


def _accepts(tests: dict[str, Any], arguments: Sequence[Any], text: str, expected: Expected) -> bool:
    if tests.get("check") == "polynomial_root":
        return is_root(arguments[0], text, tests["atol"])
    if tests.get("check") == "same_set":
        return expected.has_same_elements(text)
    atol = tests.get("atol")
    return expected.equals(text) if atol is None else expected.is_near(text, atol)
