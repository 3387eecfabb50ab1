"""Code: does the program compute what it should, in time?

`Problem.gold` is the complete reference program. `Problem.tests` is one of three JSON objects.

Asserts (HumanEval, MBPP, tiny_code)::

    {"entry_point": "f",                  # the name that the program must define
     "preamble": "import re",             # optional: run before the program
     "setup": "import math",              # run after the program, before the tests; may be ""
     "asserts": ["assert f(3) == 20"]}    # one assert statement each

Inputs (HumanEval+, MBPP+)::

    {"entry_point": "f",
     "preamble": "from typing import List",  # imports and helpers of the prompt, run before the program
     "inputs": [[3], [10]],                  # argument lists; or
     "typed_inputs": ["l", ["l", "i3"]],     # the same with tuples, sets and complex numbers (`sandbox.values`); or
     "recorded": "def check(candidate): ...",  # a test: the inputs are what it calls the reference program with
     "atol": 0.0,                            # tolerance for floats; 0: exact, or 1e-6 where all expected are floats
     "check": "polynomial_root",             # optional: the value must be a root, within atol, of the polynomial in
                                             # the first argument; "same_set": results are compared as sets;
                                             # "not_none": of one that is no bool, only whether it is there
     "also_right": "def f(x): ..."}          # optional: a second reference program, for another reading of the task

Cases (programming contests, LiveCodeBench), which need no reference program::

    {"cases": [{"input": "1 2\\n",          # the standard input of the program; or arguments for `function`
                "output": "3\\n",           # what it has to print, or to return
                "time_limit_s": 2.0}],      # optional: CPU seconds for this case
     "comparison": "tokens",                # optional: tokens, exact, lines, floats, ... (`graders.programs.outputs`)
     "tolerance": 1e-6,                     # for floats: absolute, or relative to a number above 1
     "checker": "def check(input, output, expected): ...",  # in place of `comparison`: Python, true where it is right
     "time_limit_s": 6.0,                   # optional: for cases without one of their own
     "memory_mib": 1024,                    # optional: address space (64 to 16,384), in place of the grader's
     "function": "solve",                   # optional: a function of this name, or a method of a class Solution, is
                                            # tested: inputs are JSON values, one a line, outputs are one JSON value
     "wrapped": true,                       # optional: of an output in a list of one, the value is right, too
     "language": "cpp",                     # optional: C++17, compiled by g++; without it, Python
     "star_imports": true,                  # optional: names of the standard library are there without an import
     "calls_main": true,                    # optional: a main() that is defined and never called is called
     "digits": 50000}                       # optional: most digits of an integer that is read or printed

or with ``packed`` in place of ``cases``, where they lie in a file of their own (`graders.programs.packed`), or with
``refused``, the reason for which they cannot be graded here: each program is then the grader's error.

The program never sees an expected value. Of `assert A == B` the side that calls the entry point is evaluated in the
sandbox and sent back; the other is a literal, or is evaluated in a sandbox beside the reference program. Of any other
assert, such as `assert isclose(f(3), 9.42)`, the calls of the entry point are evaluated beside the program, and the
rest, with their values in their places, in another sandbox beside the reference program. Outputs for `inputs` are
compared with those of the reference program, which runs once for each problem. Values are compared as plain data (see
`evaluation.sandbox.values`): a class with an `__eq__` of its own gains nothing, and nan is nan. A reference program
that fails an assert which is no equation, or returns something that is no plain data, is the grader's error.

The whole of a program is run first, in a form in which nothing that the tests do not need can end it; where even that
does not come to its end, what they need alone (`evaluation.graders.reachable.forms`). Which of the two is judged hangs
on how the first ended, never on what is right: a program cannot answer twice.

A program has `timeout_s` CPU seconds, or four times what the reference takes, where that is more; and where the
reference needs more memory than usual, programs that need it have four times as much, one at a time.
"""

from collections.abc import Sequence
from typing import Any

from evaluation.graders.asserts import ReferenceFailed
from evaluation.graders.programs.cases import judge
from evaluation.graders.programs.tests import BadTests, case_tests, has_cases
from evaluation.graders.reference import Reference, out_of_memory, plain_values
from evaluation.records import Problem, Verdict
from evaluation.sandbox import ProgramResult, Sandbox, SandboxError
from evaluation.sandbox.comparison import Expected, is_root, short
from evaluation.sandbox.values import MalformedValue

VERSION = "7"  # part of every score's protocol; raise it when the same program may get another verdict
REFERENCE_FACTOR = 4.0


class CodeGrader:
    """Grades programs, which run in `sandbox` for `timeout_s` CPU seconds or more. Safe to use from several threads.
    With `count_cases`, cases behind a failed one are run as well, and counted."""

    def __init__(self, sandbox: Sandbox, timeout_s: float, *, count_cases: bool = False) -> None:
        self.sandbox, self.timeout_s, self._count_cases = sandbox, timeout_s, count_cases
        self._references: dict[tuple[str, ...], Reference] = {}

    def grade(self, problem: Problem, source: str) -> tuple[Verdict, str]:
        """Verdict on a program, and what went wrong."""
        return self.grade_share(problem, source)[:2]

    def grade_share(self, problem: Problem, source: str) -> tuple[Verdict, str, float | None]:
        """Verdict on a program, what went wrong, and the share of the cases that it passed; None where the tests are
        no cases, or say nothing. Those behind a failed one count as failed, unless the grader counts cases."""
        try:
            if has_cases(problem.tests):
                tests = case_tests(problem.tests)
                judged = judge(tests, source, self.sandbox, self.timeout_s, all_cases=self._count_cases)
                return judged.verdict, judged.detail, judged.passed / judged.cases
            reference = self._reference(problem)
            judge_by = self._judge_asserts if reference.tests().asserts else self._judge_inputs
            return *judge_by(problem, reference, source), None
        except (ReferenceFailed, SandboxError, BadTests) as error:
            return "grader_error", str(error), None

    def expected_cpu_s(self, problem: Problem) -> float | None:
        """CPU seconds of the reference program, run if need be, where its values are needed; None where not."""
        if has_cases(problem.tests):
            return None
        reference = self._reference(problem)
        try:
            return None if reference.tests().asserts else reference.result().cpu_s
        except (ReferenceFailed, SandboxError):
            return None  # every verdict on the problem says so

    def _reference(self, problem: Problem) -> Reference:
        # Not known by the inputs, which may be megabytes: of one problem of one benchmark they are always the same.
        parts = (problem.tests.get(part) for part in ("asserts", "setup", "check", "also_right"))
        key = problem.benchmark, problem.id, problem.gold, *map(str, parts)
        return self._references.setdefault(key, Reference(problem, self.sandbox, self.timeout_s))

    def _judge_inputs(self, problem: Problem, reference: Reference, source: str) -> tuple[Verdict, str]:
        # The reference's values are needed anyway: with its limits known first, no program is run twice.
        needed = reference.result()
        allowed_s = max(self.timeout_s, REFERENCE_FACTOR * needed.cpu_s)
        inputs, total = reference.tests().inputs, len(needed.values)
        result = reference.run_program(source, allowed_s, large=needed.large)
        if result.status == "limit":
            return "timeout", result.detail
        for place, (text, right) in enumerate(zip(result.texts, needed.values, strict=False)):
            if not any(_accepts(problem.tests, inputs[place], text, expected) for expected in right):
                return "wrong", f"test {place + 1} of {total}: {short(text)} instead of {short(right[0].text)}"
        if result.status != "done" or len(result.texts) < total:
            return _cut_short(result, len(result.texts), total, total)
        return "correct", ""

    def _judge_asserts(self, problem: Problem, reference: Reference, source: str) -> tuple[Verdict, str]:
        result = reference.run_program(source, self.timeout_s)
        if result.status == "limit" or out_of_memory(result):
            needed = reference.result()
            allowed_s = max(self.timeout_s, REFERENCE_FACTOR * needed.cpu_s)
            if allowed_s > self.timeout_s or needed.large:
                result = reference.run_program(source, allowed_s, large=needed.large)
        if result.status == "limit":
            return "timeout", result.detail
        tests, total = reference.tests(), len(reference.tests().asserts)
        values: dict[int, list[Any]] = {}
        shown: dict[int, str] = {}
        for place, test, texts in tests.with_texts(result.texts):
            if len(texts) < len(test.expressions):
                return _cut_short(result, place, total, sum(len(test.expressions) for test in tests.asserts))
            if test.expected is None:
                shown[place] = ", ".join(map(short, texts))
                try:
                    values[place] = plain_values(texts)
                except MalformedValue as error:
                    return "wrong", f"test {place + 1} of {total}: {error}"
            elif not test.expected.equals(texts[0]):
                expected = short(test.expected.text)
                return "wrong", f"test {place + 1} of {total}: {short(texts[0])} instead of {expected}"
        failed = reference.first_failed(values)
        if failed is None:
            return "correct", ""
        place, detail = failed
        if place in reference.failing():
            statement = problem.tests["asserts"][place]
            raise ReferenceFailed(f"the reference program of {problem.id} fails an assert: {statement}: {detail}")
        return "wrong", f"not so for {shown[place]}: {tests.asserts[place].rest}" + (f": {detail}" if detail else "")


def _cut_short(result: ProgramResult, passed: int, tests: int, values: int) -> tuple[Verdict, str]:
    """The verdict on a program that did not get to the end of its tests."""
    if result.status != "done":
        return "wrong", f"test {min(passed + 1, tests)} of {tests}: {result.detail}"
    return "wrong", f"{len(result.texts)} results for {values} tests"


def _accepts(tests: dict[str, Any], arguments: Sequence[Any], text: str, expected: Expected) -> bool:
    if tests.get("check") == "polynomial_root":
        return is_root(arguments[0], text, tests["atol"])
    atol = tests.get("atol")
    return expected.equals(text) if atol is None else expected.is_near(text, atol)
