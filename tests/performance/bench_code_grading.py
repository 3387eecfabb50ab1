"""Grading code: the reference programs of HumanEval+, and samples of models, through `vcore score`, and through
EvalPlus on the same machine in the same run.

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
from evaluation.graders import extraction
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


PLUS = {
    "humaneval_plus": ("humaneval", "HUMANEVAL_OVERRIDE_PATH", "humanevalplus/HumanEvalPlus.jsonl.gz"),
    "mbpp_plus": ("mbpp", "MBPP_OVERRIDE_PATH", "mbppplus/MbppPlus.jsonl.gz"),
}
"""EvalPlus' name of a benchmark, the variable that gives it the problems, and the file of them."""


def plus_problems(benchmark: str) -> tuple[Path, list[Problem]]:
    """The folder of local copies, and a benchmark's problems from there."""
    data = os.environ.get("VCORE_TEST_DATA")
    if data is None:
        pytest.skip("set VCORE_TEST_DATA to local copies of the benchmarks")
    return Path(data), load(get(benchmark), "test", Path(data))


def beside_evalplus(benchmark: str, data: Path, programs: Sequence[tuple[str, str]], folder: Path) -> None:
    """Grade (problem, program) pairs with `vcore score` and with EvalPlus, and print times and their ratio."""
    samples = folder / "samples.jsonl"
    samples.write_text("".join(json.dumps({"task_id": id, "solution": text}) + "\n" for id, text in programs))
    cores = len(os.sched_getaffinity(0))

    ours = [sys.executable, "-m", "pipeline", "score", benchmark, str(samples), "--data", str(data), "--json"]
    wall, cpu, printed = timed(ours, {"PYTHONPATH": str(ROOT)})
    passed = json.loads(printed)["verdicts"].get("correct", 0)
    print(f"\n  {benchmark}, {len(programs):,} programs")
    print(f"  vcore score: {wall:.1f} s, {cpu:.1f} CPU s on {cores} cores, {passed} pass")

    evalplus = os.environ.get("VCORE_EVALPLUS_PYTHON")
    if evalplus is None:
        pytest.skip("set VCORE_EVALPLUS_PYTHON to measure EvalPlus beside it")
    name, variable, file = PLUS[benchmark]
    plain = folder / f"{name}.jsonl"
    plain.write_bytes(gzip.decompress((data / file).read_bytes()))
    command = [evalplus, "-m", "evalplus.evaluate", "--dataset", name, "--samples", str(samples), "--i-just-wanna-run"]
    # A cache of its own and empty: EvalPlus computes what the references return, as we do.
    environment = {variable: str(plain), "XDG_CACHE_HOME": str(folder / "cache")}
    their_wall, their_cpu, _ = timed([*command, "--parallel", str(cores)], environment)
    verdicts = json.loads(samples.with_name("samples_eval_results.json").read_text())["eval"]
    theirs = sum(row["base_status"] == row["plus_status"] == "pass" for rows in verdicts.values() for row in rows)
    print(f"  EvalPlus:    {their_wall:.1f} s, {their_cpu:.1f} CPU s, {theirs} pass")
    print(f"  ratio: wall {wall / their_wall:.2f}, CPU {cpu / their_cpu:.2f}")


def test_humaneval_plus_beside_evalplus(tmp_path: Path) -> None:
    data, problems = plus_problems("humaneval_plus")
    beside_evalplus("humaneval_plus", data, [(problem.id, str(problem.gold)) for problem in problems], tmp_path)


@pytest.mark.parametrize("benchmark", PLUS)
def test_samples_of_models_beside_evalplus(tmp_path: Path, benchmark: str) -> None:
    """VCORE_BENCH_SAMPLES names `generations.jsonl` files of models, with `:` between them."""
    files = os.environ.get("VCORE_BENCH_SAMPLES")
    if not files:
        pytest.skip("set VCORE_BENCH_SAMPLES to generations.jsonl files, as `vcore run` leaves them in its store")
    data, problems = plus_problems(benchmark)
    entry_points = {problem.id: problem.tests["entry_point"] for problem in problems}
    rows = [json.loads(line) for file in files.split(":") for line in Path(file).read_text().splitlines()]
    programs = [
        (row["problem_id"], extraction.program(row["completion"], entry_points[row["problem_id"]]) or "")
        for row in rows
        if row["benchmark"] == benchmark
    ]
    beside_evalplus(benchmark, data, programs, tmp_path)
