"""Grading contest programs: verdicts and time beside LiveCodeBench's own grader, in the same run.

VCORE_LIVECODEBENCH names a checkout of its repository (its grader needs numpy and tqdm); without it only ours is
measured. Verdicts are compared on all programs of `tests.evaluation.benchmarks.contests.programs`; time on 300 of them
that end, in turn.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from evaluation.graders.programs import packed
from evaluation.grading import Grader
from evaluation.records import Problem
from tests.evaluation.benchmarks.contests.programs import Program, build

ROUNDS = 3
THEIRS = """
import json, sys, time
import numpy
from lcb_runner.evaluation.compute_code_generation_metrics import codegen_metrics
programs = json.load(sys.stdin)
samples = [{"input_output": json.dumps(sample)} for sample, _ in programs]
started = time.perf_counter()
_, results, _ = codegen_metrics(samples, [[source] for _, source in programs], [1], int(sys.argv[1]), 6)
spent = time.perf_counter() - started
right = [bool(numpy.all(numpy.array(results[n][0]) > 0)) for n in range(len(programs))]
print("\\nANSWER" + json.dumps([spent, right]))
"""


def theirs(programs: list[Program], workers: int) -> tuple[float, list[bool]]:
    """Seconds, and what is right, by LiveCodeBench's grader."""
    folder = os.environ.get("VCORE_LIVECODEBENCH")
    if folder is None:
        pytest.skip("set VCORE_LIVECODEBENCH to measure LiveCodeBench's grader beside it")
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(workers)],
        input=json.dumps([(program.sample, program.source) for program in programs]),
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stderr[-2000:]
    spent, right = json.loads(answers[-1].removeprefix("ANSWER"))
    return spent, right


def ours(programs: list[Program], workers: int) -> tuple[float, list[bool]]:
    started = time.perf_counter()
    with Grader(workers) as grader:
        graded = grader.grade([(program.problem, program.source, "stop") for program in programs])
    return time.perf_counter() - started, [one.verdict == "correct" for one in graded]


def test_verdicts_beside_livecodebenchs() -> None:
    cores = len(os.sched_getaffinity(0))
    programs = build()
    _, here = ours(programs, cores)
    _, there = theirs(programs, cores)
    table = Counter((program.kind, one, other) for program, one, other in zip(programs, here, there, strict=True))
    agreeing = sum(n for (_, one, other), n in table.items() if one == other)
    print(f"\n  {agreeing} of {len(programs)} verdicts agree; the others:")
    for (kind, one, other), n in table.items():
        if one != other:
            print(f"  {kind}: {n} {'right' if one else 'not right'} here, {'right' if other else 'not right'} there")


def test_three_hundred_programs_beside_livecodebenchs() -> None:
    cores = len(os.sched_getaffinity(0))
    programs = build(endless=False)[:300]
    for _ in range(ROUNDS):
        wall, _ = ours(programs, cores)
        print(f"\n  ours: {wall:.1f} s for {len(programs)} programs on {cores} cores", end="", flush=True)
        their_wall, _ = theirs(programs, cores)
        print(f"; LiveCodeBench: {their_wall:.1f} s; ratio {wall / their_wall:.2f}", end="", flush=True)


@pytest.mark.parametrize("megabytes", [100, 300])
def test_memory_does_not_grow_with_the_tests(tmp_path: Path, megabytes: int) -> None:
    line = " ".join(map(str, range(100_000))) + "\n"
    number = megabytes * 10**6 // (2 * len(line))
    stored = packed.pack(({"input": f"{n} {line}", "output": f"{n} {line}"} for n in range(number)), tmp_path / "cases")
    problem = Problem("long", "bench", "code", "?", "", {"packed": stored, "time_limit_s": 6.0})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Grader(2) as grader:
        [graded] = grader.grade([(problem, "print(input())", "stop")])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert graded.verdict == "correct"
    print(f"\n  {megabytes} MB of tests: peak {peak / 1024:.0f} MiB, {before / 1024:.0f} MiB before", end="")
