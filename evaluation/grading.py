"""One grader for evaluation and for reward: completions in, verdicts out, in order, with nothing able to hang it."""

from __future__ import annotations

import dataclasses
import functools
import json
import queue
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from hashlib import sha256

from evaluation.graders import choice, code, extraction, maths
from evaluation.graders.extraction import boxed_answer, cpp_program, method_program, printing_program, program
from evaluation.graders.programs.tests import has_cases
from evaluation.harness.scheduling import LongestFirst
from evaluation.records import Problem, Verdict
from evaluation.sandbox import Level, Sandbox

Item = tuple[Problem, str, str]
"""(problem, completion, finish reason)"""

REMEMBERED = 100_000
"""Pairs of gold and answer whose verdict is remembered: during RL the same answers recur."""


@dataclasses.dataclass(frozen=True)
class Graded:
    """The verdict on one completion. `extracted` is the answer or the program that was judged; `share`, of a program
    that is tested by cases, how many of them it passed, from 0 to 1 (see `CodeGrader.grade_share`)."""

    verdict: Verdict
    extracted: str | None
    detail: str = ""
    share: float | None = None


class Grader(AbstractContextManager["Grader"]):
    """Grades completions of maths, multiple-choice and code problems. A context manager, for one thread at a time.

    Worker processes are started when an item first needs them, and end with the grader or with this process.

    Args:
        workers: items graded at once, each in a process of its own.
        maths_timeout_s: seconds on the clock for one answer that needs algebra.
        code_timeout_s: CPU seconds for one program (see `evaluation.graders.code`).
        memory_mib: address space of one program.
        sandbox_level: forces the sandbox's level; None takes the best the machine has.
        count_cases: run a program on the cases behind a failed one as well, for its share.
        packages: distributions of this environment that programs may import (see `evaluation.sandbox.packages`).
    """

    def __init__(
        self,
        workers: int = 2,
        maths_timeout_s: float = 5.0,
        code_timeout_s: float = 4.0,
        memory_mib: int = 4096,
        sandbox_level: Level | None = None,
        *,
        count_cases: bool = False,
        packages: Sequence[str] = (),
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers: {workers}, at least one is needed")
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="grader")
        self._queue = LongestFirst(self._pool)
        self._maths = [maths.MathsWorker(maths_timeout_s) for _ in range(workers)]
        self._free: queue.SimpleQueue[maths.MathsWorker] = queue.SimpleQueue()
        for worker in self._maths:
            self._free.put(worker)
        self._remembered: dict[tuple[str, str], tuple[Verdict, str]] = {}
        self._code_options = code_timeout_s, memory_mib, sandbox_level, packages
        self._count_cases = count_cases
        self._code: code.CodeGrader | None = None

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and running programs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in self._maths:
            worker.interrupt()
        if self._code is not None:
            self._code.sandbox.close()
        self._pool.shutdown(wait=True)
        for worker in self._maths:
            worker.close()

    @property
    def sandbox_level(self) -> Level | None:
        """How programs are isolated; None while no code problem has been graded."""
        return None if self._code is None else self._code.sandbox.level

    @property
    def sandbox_unprotected(self) -> tuple[str, ...]:
        """What programs can do here that the sandbox at its best forbids; empty while no code problem was graded."""
        return () if self._code is None else self._code.sandbox.unprotected

    def start_sandbox(self) -> Level:
        """Prepare for code problems now rather than at the first of them; how programs will be isolated."""
        return self._code_grader().sandbox.level

    @property
    def maths_workers_started(self) -> int:
        """How many maths processes have been started so far, replacements included."""
        return sum(worker.started for worker in self._maths)

    def grade(self, items: Sequence[Item], on_done: Callable[[int], None] | None = None) -> list[Graded]:
        """Verdicts in the order of `items`.

        Args:
            on_done: called in this thread with the number of items graded so far, each time it grows.

        Raises:
            ValueError: a problem of unknown kind. What a completion does to its worker never raises: it is a verdict.
        """
        answers: dict[tuple[str, str], Future[Graded]] = {}
        programs: dict[int, _Programs] = {}
        graded = [self._start(item, answers, programs) for item in items]
        for of_problem in programs.values():
            self._judge(of_problem)
        places: dict[Future[Graded], list[int]] = {}
        for place, result in enumerate(graded):
            if isinstance(result, Future):
                places.setdefault(result, []).append(place)
        done = len(items) - sum(map(len, places.values()))
        if on_done is not None and done:
            on_done(done)
        finished: queue.SimpleQueue[Future[Graded]] = queue.SimpleQueue()
        for future in places:  # as_completed would never return what closing cancels
            future.add_done_callback(finished.put)
        for _ in range(len(places)):
            future = finished.get()
            for place in places[future]:
                graded[place] = future.result()
            done += len(places[future])
            if on_done is not None:
                on_done(done)
        return [result for result in graded if isinstance(result, Graded)]

    def _start(
        self, item: Item, answers: dict[tuple[str, str], Future[Graded]], programs: dict[int, _Programs]
    ) -> Graded | Future[Graded]:
        """The verdict where it is known at once, else a future for it.

        Args:
            answers: futures of the (gold, answer) pairs of this call that a worker compares.
            programs: of this call, by `id` of their problem; they are judged once all are known.
        """
        problem, completion, finish_reason = item
        if finish_reason == "prompt_too_long":
            return Graded("no_answer", None, "the prompt was too long to be sampled")
        if problem.kind == "maths":
            answer = boxed_answer(completion)
            if answer is None:
                return Graded("no_answer", None)
            key = choice.without_letters(problem.gold, answer)
            answer = key[1]
            known = maths.without_worker(*key) or self._remembered.get(key)
            if known is not None:
                return Graded(known[0], answer, known[1])
            if key not in answers:
                answers[key] = self._pool.submit(self._compare, *key)
            return answers[key]
        if problem.kind == "choice":
            letter = choice.letter(boxed_answer(completion))
            return Graded("no_answer" if letter is None else "correct" if letter == problem.gold else "wrong", letter)
        if problem.kind == "code":
            of_problem = programs.setdefault(id(problem), _Programs(problem))
            source, missing = _program_of(problem, completion)
            if source is None:
                return Graded("no_answer", None, missing)
            future: Future[Graded] = Future()
            of_problem.waiting.append((source, future))
            return future
        raise ValueError(f"{problem.benchmark} {problem.id}: no grader for the kind {problem.kind!r}")

    def _compare(self, gold: str, answer: str) -> Graded:
        worker = self._free.get()
        try:
            verdict, detail = worker.compare(gold, answer)
        finally:
            self._free.put(worker)
        if verdict in ("correct", "wrong") and len(self._remembered) < REMEMBERED:
            self._remembered[gold, answer] = verdict, detail
        return Graded(verdict, answer, detail)

    def _judge(self, programs: _Programs) -> None:
        """Schedule the programs of one problem, once its reference has shown how long they may take."""
        grader = self._code_grader()

        def judge(source: str) -> Graded:
            verdict, detail, share = grader.grade_share(programs.problem, source)
            return Graded(verdict, source, detail, share)

        def schedule() -> None:
            expected_s = grader.expected_cpu_s(programs.problem)
            for source, future in programs.waiting:
                self._queue.put(functools.partial(judge, source), expected_s, future)

        if programs.waiting:
            scheduled: Future[None] = Future()
            scheduled.add_done_callback(programs.fail)
            self._queue.put(schedule, None, scheduled)

    def _code_grader(self) -> code.CodeGrader:
        if self._code is None:
            timeout_s, memory_mib, level, packages = self._code_options
            sandbox = Sandbox(memory_mib, level, packages=packages)
            self._code = code.CodeGrader(sandbox, timeout_s, count_cases=self._count_cases)
        return self._code


def _program_of(problem: Problem, completion: str) -> tuple[str | None, str]:
    """The program of a completion, or what is missing from it."""
    tests = problem.tests
    if not has_cases(tests):
        name = tests["entry_point"]
        return program(completion, name, problem.meta.get("completion", "")), f"no program defines {name}"
    if tests.get("language") == "cpp":
        return cpp_program(completion), "no C++ program defines main"
    name = tests.get("function")
    if name is None:
        return printing_program(completion), "no program prints anything"
    return method_program(completion, name), f"no program defines {name} or a class Solution"


class _Programs:
    """The programs of one call that answer one problem, each with the future for its verdict."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.waiting: list[tuple[str, Future[Graded]]] = []

    def fail(self, scheduled: Future[None]) -> None:
        """Where they could not be scheduled, give each of them the error, or cancel it, as `scheduled` was."""
        for _, future in self.waiting:
            if scheduled.cancelled():
                future.cancel()
            elif (error := scheduled.exception()) is not None and not future.done():
                future.set_exception(error)


def grader_version(kind: str) -> dict[str, str]:
    """What decides a verdict beside the completion, as versions, for one kind of problem.

    Those of the grader and of the extraction of answers, of math-verify and its algebra for maths, of Python for code.
    Python's micro version is left out: it changes neither the language nor the library, and differs between machines.
    """
    if kind == "code":
        return {
            "grader": f"code {code.VERSION}",
            "extraction": extraction.VERSION,
            "python": ".".join(map(str, sys.version_info[:2])),
        }
    if kind == "choice":
        return {"grader": f"choice {choice.VERSION}", "extraction": extraction.VERSION}
    from importlib.metadata import version

    algebra = {"math_verify": version("math-verify"), "sympy": version("sympy")}
    return {"grader": f"maths {maths.VERSION}", "extraction": extraction.VERSION, **algebra}


def fingerprint(protocol: Mapping[str, object]) -> str:
    """Twelve hexadecimal digits for a protocol: equal ones compare, others do not."""
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode()).hexdigest()[:12]
