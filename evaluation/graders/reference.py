"""The tests of a code problem, and what its reference program gives on them (see `evaluation.graders.code`)."""

import dataclasses
import functools
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType
from typing import Any, Generic, TypeVar

from evaluation.graders.asserts import Assert, ReferenceFailed, take_apart
from evaluation.graders.reachable import forms
from evaluation.records import Problem
from evaluation.sandbox import Job, ProgramResult, Sandbox
from evaluation.sandbox.comparison import Expected, is_plain, short
from evaluation.sandbox.values import MalformedValue, decode, unpack

LIMIT_S = 120.0  # CPU seconds for a reference program; the slowest of MBPP and HumanEval+ takes about 10 on a slow core
MEMORY_FACTOR = 4
"""A reference program that does not fit into a program's memory gets so many times that, and then programs do too."""

_RECORDER = """
import copy as _copy, random as _random
_random.seed(0)
_calls = []
def _candidate(*arguments):
    _calls.append(list(_copy.deepcopy(arguments)))
    return {entry_point}(*arguments)
check(_candidate)
"""
_WRAPPED = {
    "not_none": """
def _tested(*arguments):
    result = {entry_point}(*arguments)
    return result if result is True or result is False else result is not None
""",
    "same_set": "def _tested(*arguments): return {{*{entry_point}(*arguments)}}",
}
"""What is called in the entry point's place, for a `check` that asks less than equality of results; as in EvalPlus."""
_WORD = re.compile(r"[A-Za-z_]\w*")
_T = TypeVar("_T")


class _Once(Generic[_T]):
    """A value that one thread computes when it is first needed, while others wait. A `ReferenceFailed` is kept like a
    value; after any other error it is computed again."""

    def __init__(self, compute: Callable[[], _T]) -> None:
        self._compute, self._lock = compute, threading.Lock()
        self._kept: list[_T | ReferenceFailed] = []

    def __call__(self) -> _T:
        with self._lock:
            if not self._kept:
                try:
                    self._kept.append(self._compute())
                except ReferenceFailed as error:
                    self._kept.append(error)
        if isinstance(self._kept[0], ReferenceFailed):
            raise self._kept[0]
        return self._kept[0]


@dataclasses.dataclass(frozen=True)
class Tests:
    """A problem's tests, made ready to run: asserts, or inputs for `entry_point`; and sources around the program."""

    before: str
    after: str
    asserts: tuple[Assert, ...] = ()
    inputs: Sequence[Sequence[Any]] = ()
    entry_point: str | None = None

    def with_texts(self, texts: Iterable[str]) -> Iterator[tuple[int, Assert, list[str]]]:
        """Each assert with its place and the texts of its expressions; fewer or none where the program ended early."""
        rest = iter(texts)
        for place, test in enumerate(self.asserts):
            yield place, test, list(itertools.islice(rest, len(test.expressions)))


@dataclasses.dataclass(frozen=True)
class ReferenceResult:
    """What is right on each test (the value of the reference program, and of a second one where there is one), the CPU
    seconds of the reference program, and whether it needed more memory than usual."""

    values: tuple[tuple[Expected, ...], ...]
    cpu_s: float
    large: bool


class Reference:
    """A code problem's tests and reference program. Safe to use from several threads.

    `tests`, `result` and `failing` (the places of the asserts with a `rest` that the reference program itself fails)
    are called without arguments, compute once, and raise `ReferenceFailed`, or `SandboxError` like `Sandbox.run`.
    """

    def __init__(self, problem: Problem, sandbox: Sandbox, timeout_s: float) -> None:
        self.problem, self._sandbox, self._timeout_s = problem, sandbox, timeout_s
        self.tests = _Once(self._prepare)
        self.result = _Once(self._run_reference)
        self.failing = _Once(self._failing_asserts)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        """The entry point, and every word in the tests: MBPP's build objects of classes that the program defines."""
        tests = self.problem.tests
        parts = [tests["entry_point"], tests.get("setup", ""), tests.get("recorded", ""), *tests.get("asserts", ())]
        return frozenset(_WORD.findall("\n".join(parts)))

    def run_program(self, source: str, cpu_limit_s: float, *, large: bool = False) -> ProgramResult:
        """The result of the first form of a program (see `forms`) that comes to its end, else of the last; each has the
        limit to itself."""
        for form in forms(source, self._names):
            result = self.run(form, cpu_limit_s, large=large)
            if result.status == "done":
                break
        return result

    def run(self, source: str | CodeType, cpu_limit_s: float, *, large: bool = False) -> ProgramResult:
        """The result of a source on the tests, with `MEMORY_FACTOR` times the usual memory where it is `large`."""
        tests = self.tests()
        expressions = [expression for test in tests.asserts for expression in test.expressions]
        job = Job([tests.before, source, tests.after], expressions, tests.entry_point, tests.inputs)
        return self._sandbox.run(job, cpu_limit_s, self._sandbox.memory_mib * (MEMORY_FACTOR if large else 1))

    def first_failed(self, values: dict[int, list[Any]]) -> tuple[int, str] | None:
        """The place of the first assert whose `rest` does not hold, and how evaluating it beside the reference program
        failed, if it did. `values` are those of the expressions, plain, by the place of the assert."""
        if not values:
            return None
        tests = self.tests()
        rests = f"_rests = [{', '.join(str(test.rest) for test in tests.asserts)}]\n"
        holds = f"{rests}def _holds(place, values): return bool(_rests[place](*values))"
        job = Job([self.problem.gold, tests.after, holds], entry_point="_holds", inputs=list(values.items()))
        result = self._sandbox.run(job, self._timeout_s)
        for place, text in itertools.zip_longest(values, result.texts):
            if text != "true":
                return place, result.detail if text is None else ""
        return None

    def _prepare(self) -> Tests:
        tests, name = self.problem.tests, self.problem.tests["entry_point"]
        before, after = tests.get("preamble", ""), tests.get("setup", "")
        if "asserts" in tests:
            asserts = [take_apart(statement, name) for statement in tests["asserts"]]
            unknown = [test.other_side for test in asserts if test.other_side is not None]
            texts = iter(self._evaluate(unknown, after) if unknown else [])
            # Expected values that are no literals come from the reference program.
            ready = (Assert(t.expressions, self._expected(next(texts))) if t.other_side else t for t in asserts)
            return Tests(before, after, tuple(ready))
        if "recorded" in tests:
            inputs = self._recorded_inputs(name)
        else:
            inputs = decode(tests["typed_inputs"]) if "typed_inputs" in tests else tests["inputs"]
        if tests.get("check") in _WRAPPED:
            return Tests(before, _WRAPPED[tests["check"]].format(entry_point=name), (), inputs, "_tested")
        return Tests(before, "", inputs=inputs, entry_point=name)

    def _recorded_inputs(self, name: str) -> list[list[Any]]:
        """What the test calls its candidate with when that is the reference program."""
        [calls] = self._evaluate(["_calls"], self.problem.tests["recorded"], _RECORDER.format(entry_point=name))
        try:
            [inputs] = plain_values([calls])
            if not isinstance(inputs, list):
                raise MalformedValue(short(calls))
        except MalformedValue as error:
            raise ReferenceFailed(f"the inputs of {self.problem.id} cannot be recorded: {error}") from error
        return inputs

    def _evaluate(self, expressions: Sequence[str], *sections: str) -> list[str]:
        """The texts of expressions beside the reference program, after further sections."""
        result = self._sandbox.run(Job([self.problem.gold, *sections], expressions), LIMIT_S)
        return self._done(result, f"the expected values of {self.problem.id} cannot be computed").texts

    def _run_reference(self) -> ReferenceResult:
        result = self.run(self.problem.gold, LIMIT_S)
        if large := out_of_memory(result):
            result = self.run(self.problem.gold, LIMIT_S, large=True)
        failure = f"the reference program of {self.problem.id} fails"
        right = [self._done(result, failure).texts]
        if also := self.problem.tests.get("also_right"):
            right.append(self._done(self.run(also, LIMIT_S), failure).texts)
        values = tuple(tuple(map(self._expected, texts)) for texts in zip(*right, strict=True))
        return ReferenceResult(values, result.cpu_s, large)

    def _failing_asserts(self) -> set[int]:
        result = self.run(self.problem.gold, LIMIT_S)
        self._done(result, f"the reference program of {self.problem.id} fails")
        failing = set()
        for place, test, texts in self.tests().with_texts(result.texts):
            try:
                if test.rest is not None and self.first_failed({place: plain_values(texts)}) is not None:
                    failing.add(place)
            except MalformedValue:
                failing.add(place)
        return failing

    def _done(self, result: ProgramResult, failure: str) -> ProgramResult:
        if result.status != "done":
            raise ReferenceFailed(f"{failure}: {result.detail}")
        return result

    def _expected(self, text: str) -> Expected:
        try:
            return Expected(text)
        except MalformedValue as error:
            raise ReferenceFailed(f"the reference program of {self.problem.id} returns {error}") from error


def plain_values(texts: Sequence[str]) -> list[Any]:
    """The values of some texts, to be handed on to another program. Raises `MalformedValue` where one is not whole."""
    values = list(map(unpack, texts))
    if not all(map(is_plain, values)):
        raise MalformedValue(", ".join(map(short, texts)))
    return values


def out_of_memory(result: ProgramResult) -> bool:
    """Whether the program ended for lack of memory."""
    return result.status == "raised" and result.detail.startswith("MemoryError")
