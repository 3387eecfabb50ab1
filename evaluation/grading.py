"""One grader for evaluation and for reward: completions in, verdicts out, in order, with nothing able to hang it."""

from __future__ import annotations

import dataclasses
import functools
import json
import queue
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from types import TracebackType

from evaluation.graders import choice, code, extraction, maths
from evaluation.graders.extraction import boxed_answer, program
from evaluation.harness.scheduling import LongestFirst
from evaluation.records import Problem, Verdict
from evaluation.sandbox import Level, Sandbox

Item = tuple[Problem, str, str]
"""(problem, completion, finish reason)"""

_WORD = re.compile(r"[A-Za-z_]\w*")
REMEMBERED = 100_000
"""Pairs of gold and answer whose verdict is remembered; during RL the same answers come again and again."""


@dataclasses.dataclass(frozen=True)
class Graded:
    """The verdict on one completion. `extracted` is the answer or the program that was judged."""

    verdict: Verdict
    extracted: str | None
    detail: str = ""


class Grader:
    """Grades completions of maths, multiple-choice and code problems; use as a context manager. One thread at a time may call `grade`.

    Worker processes are started when an item first needs them, live as long as the grader, and end with it or with this process.

    Args:
        workers: items graded at once, each in a process of its own.
        maths_timeout_s: seconds on the clock for one answer that needs algebra.
        code_timeout_s: CPU seconds for one program (see `evaluation.graders.code`).
        memory_mib: address space of one program.
        sandbox_level: forces the sandbox's level; None takes the best the machine has.
    """

    def __init__(
        self,
        workers: int = 2,
        maths_timeout_s: float = 5.0,
        code_timeout_s: float = 4.0,
        memory_mib: int = 4096,
        sandbox_level: Level | None = None,
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
        self._code_options = code_timeout_s, memory_mib, sandbox_level
        self._code: code.CodeGrader | None = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """What programs can do on this machine that the sandbox at its best forbids; empty while no code problem has been graded."""
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
        graded: list[Graded | None] = [None] * len(items)
        waiting: dict[Future[Graded], list[int]] = {}
        equal_answers: dict[tuple[str, str], Future[Graded]] = {}
        needed: dict[int, frozenset[str]] = {}
        programs: dict[int, tuple[Problem, list[tuple[int, str]]]] = {}
        for place, (problem, completion, finish_reason) in enumerate(items):
            if finish_reason == "prompt_too_long":
                graded[place] = Graded("no_answer", None, "the prompt was too long to be sampled")
            elif problem.kind == "maths":
                answer = boxed_answer(completion)
                graded[place] = self._without_worker(problem, answer)
                if answer is not None and graded[place] is None:
                    key = problem.gold, answer
                    if key not in equal_answers:
                        equal_answers[key] = self._pool.submit(self._grade_maths, problem.gold, answer)
                    waiting.setdefault(equal_answers[key], []).append(place)
            elif problem.kind == "choice":
                letter = choice.letter(boxed_answer(completion))
                graded[place] = Graded(
                    "no_answer" if letter is None else "correct" if letter == problem.gold else "wrong", letter
                )
            elif problem.kind == "code":
                if id(problem) not in needed:
                    needed[id(problem)] = _names_in_tests(problem)
                source = program(
                    completion, problem.tests["entry_point"], problem.meta.get("completion", ""), needed[id(problem)]
                )
                if source is None:
                    graded[place] = Graded("no_answer", None, f"no program defines {problem.tests['entry_point']}")
                else:
                    programs.setdefault(id(problem), (problem, []))[1].append((place, source))
            else:
                raise ValueError(f"{problem.benchmark} {problem.id}: no grader for the kind {problem.kind!r}")
        for problem, sources in programs.values():
            for future, (place, _) in zip(
                self._grade_programs(problem, [source for _, source in sources]), sources, strict=True
            ):
                waiting[future] = [place]
        done = sum(result is not None for result in graded)
        if on_done is not None and done:
            on_done(done)
        finished: queue.SimpleQueue[Future[Graded]] = (
            queue.SimpleQueue()
        )  # as_completed would wait for ever for what closing cancels
        for future in waiting:
            future.add_done_callback(finished.put)
        for _ in range(len(waiting)):
            future = finished.get()
            for place in waiting[future]:
                graded[place] = future.result()
            done += len(waiting[future])
            if on_done is not None:
                on_done(done)
        return [result for result in graded if result is not None]

    def _without_worker(self, problem: Problem, answer: str | None) -> Graded | None:
        if answer is None:
            return Graded("no_answer", None)
        known = maths.without_worker(problem.gold, answer) or self._remembered.get((problem.gold, answer))
        return None if known is None else Graded(known[0], answer, known[1])

    def _grade_maths(self, gold: str, answer: str) -> Graded:
        worker = self._free.get()
        try:
            verdict, detail = worker.compare(gold, answer)
        finally:
            self._free.put(worker)
        if verdict in ("correct", "wrong") and len(self._remembered) < REMEMBERED:
            self._remembered[gold, answer] = verdict, detail
        return Graded(verdict, answer, detail)

    def _grade_programs(self, problem: Problem, sources: list[str]) -> list[Future[Graded]]:
        """Have the programs of one problem judged, once it is known what its reference costs: the costliest problems come first."""
        grader = self._code_grader()
        futures: list[Future[Graded]] = [Future() for _ in sources]

        def judge(source: str) -> Graded:
            verdict, detail = grader.grade(problem, source)
            return Graded(verdict, source, detail)

        def put() -> None:
            cost_s = grader.expected_cpu_s(problem)
            for source, future in zip(sources, futures, strict=True):
                self._queue.put(functools.partial(judge, source), cost_s, future)

        begun: Future[None] = Future()
        begun.add_done_callback(functools.partial(_fail_with, futures))
        self._queue.put(put, None, begun)
        return futures

    def _code_grader(self) -> code.CodeGrader:
        if self._code is None:
            timeout_s, memory_mib, level = self._code_options
            self._code = code.CodeGrader(Sandbox(memory_mib, level), timeout_s)
        return self._code


def _names_in_tests(problem: Problem) -> frozenset[str]:
    """Every word in the tests' source: MBPP's build objects of classes that the program has to define."""
    parts = [problem.tests.get("setup", ""), problem.tests.get("recorded", ""), *problem.tests.get("asserts", ())]
    return frozenset(_WORD.findall("\n".join(parts)))


def _fail_with(futures: list[Future[Graded]], begun: Future[None]) -> None:
    """What kept the programs from being put is what whoever waits for their verdicts is told."""
    for future in futures:
        if begun.cancelled():
            future.cancel()
        elif (error := begun.exception()) is not None and not future.done():
            future.set_exception(error)


def grader_version(kind: str) -> dict[str, str]:
    """What decides a verdict beside the completion: versions of our grader and of what finds the answer, of math-verify and its algebra for
    maths, of Python for code.

    Of Python's version the last part is left out: it changes no language and no library, and differs between machines.
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
