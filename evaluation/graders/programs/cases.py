"""Judging a program by cases.

A program that leaves nothing behind (see `plain`) is run on many cases in one process, any other one in a process a
case. Each case has the whole limit to itself: one that a process did not finish, or that failed where another ran
before it, is run again in a new process, and only that counts. What a function returned is not run again, for it keeps
its state from call to call.
"""

import dataclasses
import json
import math
from collections import deque
from collections.abc import Iterator

from evaluation.graders.programs.outputs import cut, first_difference, same
from evaluation.graders.programs.plain import leaves_nothing
from evaluation.graders.programs.prelude import prelude
from evaluation.graders.programs.tests import LONGEST_OUTPUT, BadTests, Case, CaseTests
from evaluation.records import Verdict
from evaluation.sandbox import CaseResult, CompileError, Job, Sandbox
from evaluation.sandbox.child.program import pack
from evaluation.sandbox.comparison import Expected, short
from evaluation.sandbox.values import MalformedValue

MOST_CASES, MOST_BYTES = 200, 2**22
"""Cases of one process: their number, and bytes of their inputs and outputs together."""
LEAST_OUTPUT = 2**20
"""Bytes of output that are read at least; beyond this, four times what is expected, to the next power of two: a program
that finds the number learns nothing of what is expected."""
CHECKER_S = 10.0
_CHECK = """
def _accepts(*texts):
    import numbers, re, sys
    said = check(*texts)
    numpy = sys.modules.get("numpy")
    kinds = (type(None), numbers.Number, re.Match, *((numpy.bool_, numpy.number) if numpy else ()))
    if not isinstance(said, kinds) or said != said:
        raise TypeError(f"check returned {type(said).__name__}, which is neither true nor false")
    return True if said else False
"""


@dataclasses.dataclass(frozen=True)
class Judged:
    """Verdict on a program, what went wrong, and how many of its cases it passed."""

    verdict: Verdict
    detail: str
    passed: int
    cases: int


@dataclasses.dataclass(frozen=True)
class _Failure:
    verdict: Verdict
    detail: str


class _Waiting:
    """The cases that are still to be run."""

    def __init__(self, cases: Iterator[Case]) -> None:
        self._cases, self._back = cases, deque[Case]()
        self.alone = 0  # how many of the next ones are to be run alone

    def take(self, most: int) -> list[Case]:
        """The next cases for one process, at most so many; none at the end."""
        most, self.alone = (1, self.alone - 1) if self.alone else (most, 0)
        batch, size = list[Case](), 0
        while len(batch) < most and (case := self._next()) is not None:
            size += len(case.input) + len(case.output)
            if batch and (size > MOST_BYTES or case.time_limit_s != batch[0].time_limit_s):
                self._back.appendleft(case)
                break
            batch.append(case)
        return batch

    def _next(self) -> Case | None:
        return self._back.popleft() if self._back else next(self._cases, None)

    def again(self, cases: list[Case], *, alone: bool) -> None:
        """Put cases back, the first of which is to be run alone."""
        self._back.extendleft(reversed(cases))
        self.alone = int(alone)


def judge(tests: CaseTests, source: str, sandbox: Sandbox, timeout_s: float, *, all_cases: bool = False) -> Judged:
    """Verdict on a program: that of the first case it fails, or `correct`. One that does not compile is wrong.

    Args:
        timeout_s: CPU seconds of a case where the tests do not say.
        all_cases: run the cases behind a failed one as well, to count those that are passed; but none behind one that
            took too long.

    Raises:
        BadTests: the tests are not as they should be.
        SandboxError: like `Sandbox.run` and `Sandbox.compiled`.
    """
    if tests.language == "cpp":
        try:
            with sandbox.compiled(source) as program:
                # A process a case, which the sandbox starts itself.
                return _judge(tests, Job([], program=program), sandbox, timeout_s, together=True, all_cases=all_cases)
        except CompileError as error:
            return Judged("wrong", f"compile error: {error}", 0, tests.number)
    if tests.calls_main and source.count("main()") == source.count("def main():") == 1:
        source += "\nmain()\n"
    together = tests.function is not None or leaves_nothing(source)
    sections = [prelude(source), source] if tests.star_imports else [source]
    job = Job(sections, function=tests.function, digits=tests.digits)
    return _judge(tests, job, sandbox, timeout_s, together=together, all_cases=all_cases)


def _judge(
    tests: CaseTests, job: Job, sandbox: Sandbox, timeout_s: float, *, together: bool, all_cases: bool
) -> Judged:
    """The verdict by a job that is still without cases, run on many of them at once where they may be `together`."""
    waiting = _Waiting(tests.cases())
    first: _Failure | None = None
    passed = number = 0
    while batch := waiting.take(MOST_CASES if together else 1):
        limit_s = batch[0].time_limit_s or tests.time_limit_s or timeout_s
        job = dataclasses.replace(job, cases=[case.input for case in batch])
        results = sandbox.run_cases(job, limit_s, _most_output(batch), memory_mib=tests.memory_mib)
        failure = None
        for place, (case, result) in enumerate(zip(batch, results, strict=False)):
            failure = _failure(tests, case, result, sandbox)
            if failure is not None and place and (tests.function is None or result.status != "done"):
                waiting.again(batch[place:], alone=True)
                break
            number += 1
            passed += failure is None
            if failure is not None:
                if first is None:
                    first = _Failure(failure.verdict, f"case {number}: {failure.detail}")
                waiting.again(batch[place + 1 :], alone=False)
                break
        else:
            waiting.again(batch[len(results) :], alone=False)
        if first is not None and (not all_cases or (failure is not None and failure.verdict == "timeout")):
            return Judged(first.verdict, first.detail, passed, tests.number)
    if number == 0 or number != tests.number:
        raise BadTests(f"there are {number} cases, {tests.number} are announced")
    return Judged(first.verdict if first else "correct", first.detail if first else "", passed, number)


def _most_output(batch: list[Case]) -> int:
    longest = max(4 * len(case.output) for case in batch)
    return int(min(2 ** math.ceil(math.log2(max(longest, LEAST_OUTPUT))), LONGEST_OUTPUT))


def _failure(tests: CaseTests, case: Case, result: CaseResult, sandbox: Sandbox) -> _Failure | None:
    """How a program failed a case; None where it did not."""
    if len(case.output) > LONGEST_OUTPUT:
        raise BadTests(f"an expected output of {len(case.output)} bytes is longer than a program may write")
    if result.status == "limit":
        return _Failure("timeout", result.detail)
    if result.status != "done":
        printed = f", having printed {cut(result.output)}" if result.output else ""
        return _Failure("wrong", f"{result.detail}{printed}")
    if tests.function is not None:
        return _of_function(case, result, wrapped=tests.wrapped)
    if tests.checker is not None:
        return _checked(tests.checker, case, result.output, sandbox)
    if same(result.output, case.output, tests.comparison, tests.tolerance):
        return None
    return _Failure("wrong", first_difference(result.output, case.output))


def _of_function(case: Case, result: CaseResult, *, wrapped: bool) -> _Failure | None:
    try:
        value = json.loads(case.output)
        right = [value, *(value if wrapped and isinstance(value, list) and len(value) == 1 else ())]
        first, *others = (Expected(pack(one)) for one in reversed(right))
    except (ValueError, RecursionError, MalformedValue) as error:
        raise BadTests(f"an expected value is not JSON: {error}: {cut(case.output)}") from error
    text = result.output.decode(errors="replace")
    if first.equals(text) or any(expected.equals(text) for expected in others):
        return None
    return _Failure("wrong", f"{short(text)} instead of {short(first.text)}")


def _checked(checker: str, case: Case, output: bytes, sandbox: Sandbox) -> _Failure | None:
    """What a checker says, in a process that no program was in. Where it fails it is asked of the expected output, too:
    if it fails there, it is no checker, else the output is one that it cannot read."""
    texts = [text.decode(errors="replace") for text in (case.input, output, case.output)]
    result = sandbox.run(Job([checker, _CHECK], entry_point="_accepts", inputs=[texts]), CHECKER_S)
    if result.texts == ["true"]:
        return None
    if result.texts != ["false"]:
        texts[1] = texts[2]
        sound = sandbox.run(Job([checker, _CHECK], entry_point="_accepts", inputs=[texts]), CHECKER_S)
        if sound.texts != ["true"]:
            raise BadTests(f"the checker fails on the expected output: {sound.detail or 'it is not accepted'}")
        return _Failure("wrong", f"the checker cannot read {cut(output)}: {result.detail}")
    return _Failure("wrong", f"the checker does not accept {cut(output)}")
