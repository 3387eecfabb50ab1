"""Grading code: the reference programs of HumanEval+ through `vcore score`, and through EvalPlus on the same machine in
the same run.

VCORE_TEST_DATA names the folder with local copies of the benchmarks. VCORE_EVALPLUS_PYTHON names an interpreter that
has EvalPlus; without it only ours is measured. One is made with: python -m venv evalplus && evalplus/bin/pip install
evalplus==0.3.1
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get
from evaluation.grading import Grader, Item
from evaluation.loading import load
from evaluation.records import Problem

ROOT = Path(__file__).resolve().parents[2]


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Wall and CPU seconds of a command and everything it started, and what it printed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    spent, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    return spent, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


PROGRAMS = {
    "without": ((), "def f(x):\n    a = [[x + {n}, x], [x, x]]\n    return sum(map(sum, a)) - {n}"),
    "numpy": (
        ("numpy",),
        "import numpy as np\ndef f(x):\n    a = np.array([[x + {n}, x], [x, x]])\n    return int(a.sum()) - {n}",
    ),
}


def test_a_thousand_programs_with_numpy_beside_a_thousand_without() -> None:
    """Both graders take turns, in twenty rounds of fifty programs each: the load of the machine meets both alike."""
    tests = {"entry_point": "f", "setup": "", "asserts": [f"assert f({x}) == {4 * x}" for x in range(5)]}
    problem = Problem("doubles", "bench", "code", "", "def f(x): return 4 * x", tests)
    cores = len(os.sched_getaffinity(0))
    walls, shares = dict.fromkeys(PROGRAMS, 0.0), []
    graders = {name: Grader(cores, packages=packages) for name, (packages, _) in PROGRAMS.items()}
    try:
        for grader in graders.values():
            grader.start_sandbox()
        for rounds in range(20):
            spent = {}
            for name, (_, source) in PROGRAMS.items():
                items: list[Item] = [
                    (problem, source.format(n=n), "stop") for n in range(50 * rounds, 50 * rounds + 50)
                ]
                started = time.perf_counter()
                graded = graders[name].grade(items)
                spent[name] = time.perf_counter() - started
                walls[name] += spent[name]
                assert [g.verdict for g in graded] == ["correct"] * 50
            shares.append(spent["numpy"] / spent["without"])
    finally:
        for grader in graders.values():
            grader.close()
    for name, wall in walls.items():
        print(f"\n  1,000 programs, {name}: {wall:.1f} s on {cores} cores", end="")
    quarters = sorted(shares)[5], sorted(shares)[14]
    print(
        f"\n  ratio {walls['numpy'] / walls['without']:.2f} (rounds, middle half: {quarters[0]:.2f}-{quarters[1]:.2f})"
    )


ADDS = [f"assert f({x}) == {4 * x}" for x in range(5)]
CASE = {"cases": [{"input": "1 2\n", "output": "3\n"}]}
SMALL: dict[str, tuple[Sequence[str], dict[str, Any], str]] = {
    "function": ((), {"entry_point": "f", "setup": "", "asserts": ADDS}, "def f(x): return 4 * x + {n} - {n}"),
    "function, numpy": (
        *PROGRAMS["numpy"][:1],
        {"entry_point": "f", "setup": "", "asserts": ADDS},
        PROGRAMS["numpy"][1],
    ),
    "standard input": ((), CASE, "a, b = map(int, input().split())\nprint(a + b + {n} - {n})"),
    "C++, compiled before": (
        (),
        CASE | {"language": "cpp"},
        '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d", a + b); }',
    ),
}


@pytest.mark.parametrize("kind", SMALL)
def test_processor_time_of_one_verdict(kind: str) -> None:
    """Of the grader and of every process it starts, in a fresh process a program: 200 programs more or less."""
    packages, tests, source = SMALL[kind]
    problem = Problem("small", "bench", "code", "", "def f(x): return 4 * x", tests)
    spent = []
    for number in (1, 201, 1, 201, 1, 201):
        before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        with Grader(1, packages=packages) as grader:
            programs = [source.replace("{n}", str(n)) for n in range(number)]
            graded = grader.grade([(problem, f"```\n{program}\n```", "stop") for program in programs])
        assert {g.verdict for g in graded} == {"correct"}
        after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        pairs = zip(after, before, strict=True)
        spent.append(sum(one.ru_utime + one.ru_stime - other.ru_utime - other.ru_stime for one, other in pairs))
    each = sorted((many - few) / 200 for few, many in zip(spent[::2], spent[1::2], strict=True))
    print(f"\n  {kind}: {1000 * each[1]:.1f} ms a verdict ({1000 * each[0]:.1f} to {1000 * each[2]:.1f}, 3 times)")


def test_humaneval_plus_beside_evalplus(tmp_path: Path) -> None:
    data = os.environ.get("VCORE_TEST_DATA")
    if data is None:
        pytest.skip("set VCORE_TEST_DATA to local copies of the benchmarks")
    problems = load(get("humaneval_plus"), "test", Path(data))
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps({"task_id": p.id, "solution": p.gold}) + "\n" for p in problems))
    cores = len(os.sched_getaffinity(0))

    ours = [sys.executable, "-m", "pipeline", "score", "humaneval_plus", str(samples), "--data", data, "--json"]
    wall, cpu, printed = timed(ours, {"PYTHONPATH": str(ROOT)})
    score = json.loads(printed)
    passed = f"{score['verdicts']['correct']} of {score['n']} pass"
    print(f"\n  vcore score: {wall:.1f} s, {cpu:.1f} CPU s on {cores} cores, {passed}")

    evalplus = os.environ.get("VCORE_EVALPLUS_PYTHON")
    if evalplus is None:
        pytest.skip("set VCORE_EVALPLUS_PYTHON to measure EvalPlus beside it")
    plain = tmp_path / "HumanEvalPlus.jsonl"
    plain.write_bytes(gzip.decompress((Path(data) / "humanevalplus" / "HumanEvalPlus.jsonl.gz").read_bytes()))
    command = [
        evalplus,
        "-m",
        "evalplus.evaluate",
        "--dataset",
        "humaneval",
        "--samples",
        str(samples),
        "--i-just-wanna-run",
    ]
    environment = {
        "HUMANEVAL_OVERRIDE_PATH": str(plain),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # it computes its references as we do
    their_wall, their_cpu, printed = timed([*command, "--parallel", str(cores)], environment)
    last = [line for line in printed.splitlines() if "pass@1" in line]
    print(f"  EvalPlus:    {their_wall:.1f} s, {their_cpu:.1f} CPU s, {last}")
    print(f"  ratio: wall {wall / their_wall:.2f}, CPU {cpu / their_cpu:.2f}")
