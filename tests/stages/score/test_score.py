"""The score stage as the pipeline runs it, in a process of its own."""

import dataclasses
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get
from evaluation.grading import Grader
from evaluation.loading import load
from evaluation.records import Problem, Score, read_records, write_jsonl
from stages.grading.grade import check_isolation
from stages.harness.context import StageError
from stages.harness.json_files import read_json
from stages.harness.process import EXIT_STOPPED
from stages.score.metrics import compiler_of, scoring_protocol
from stages.score.settings import ScoreSettings
from tests.stages.score.cases import generation


class Inputs:
    """A data artifact with two generated benchmarks, and generations that can be spoiled before they are scored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = load(get("word_problems"), "test", None, 4, 1)
        self.code = load(get("tiny_code"), "test", None, 3, 1)
        (folder / "data" / "benchmarks").mkdir(parents=True)
        (folder / "generations").mkdir()
        write_jsonl(folder / "data" / "benchmarks" / "word_problems.jsonl", self.words)
        write_jsonl(folder / "data" / "benchmarks" / "tiny_code.jsonl", self.code)
        right, wrong, cut, silent = self.words
        self.generations = [
            generation(right, f"<think>\\boxed{{1}}</think>\\boxed{{{right.gold}.0}}"),
            generation(wrong, f"\\boxed{{{int(wrong.gold) + 1}}}"),
            generation(cut, "and then", finish_reason="length"),
            generation(silent, f"\\boxed{{{silent.gold}}}", prompt="?\n<think>\n"),  # a thought that never ended
        ]
        endings = ("forced", "finished", "cut", "cut")
        self.generations = [dataclasses.replace(g, thinking=e) for g, e in zip(self.generations, endings, strict=True)]
        for problem in self.code:
            self.generations += [
                generation(problem, f"```python\n{problem.gold}\n```", 0),
                generation(problem, "```python\ndef f(x): return None\n```", 1),
            ]
        self.protocol: dict[str, Any] = {
            "word_problems": {"name": "word_problems", "problems": 4, "samples": 1, "temperature": 0.0},
            "tiny_code": {"name": "tiny_code", "problems": 3, "samples": 2, "temperature": 1.0},
        }

    def start(self, **settings: Any) -> "subprocess.Popen[str]":
        write_jsonl(self.folder / "generations" / "generations.jsonl", self.generations)
        (self.folder / "generations" / "summary.json").write_text(json.dumps({"protocol": self.protocol}))
        spec = {
            "stage": "score",
            "settings": settings,
            "inputs": {"data": str(self.folder / "data"), "generations": str(self.folder / "generations")},
            "output": str(self.folder / "output"),
            "state": str(self.folder / "state"),
            "seed": 1,
            "machine": {"device": "cpu", "threads": 2, "data_dir": None},
        }
        (self.folder / "run").mkdir(exist_ok=True)
        (self.folder / "run" / "SPEC.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "stages.score", str(self.folder / "run" / "SPEC.json")]
        return subprocess.Popen(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )

    def score(self, **settings: Any) -> int:
        process = self.start(**settings)
        self.log = process.communicate(timeout=120)[0]
        return process.returncode

    def error(self) -> str:
        return str(read_json(self.folder / "run" / "error.json")["message"])


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


def test_every_generation_gets_a_verdict_and_every_benchmark_its_numbers(inputs: Inputs) -> None:
    assert inputs.score() == 0, inputs.log
    output = inputs.folder / "output"
    scores = read_records(output / "scores.jsonl", Score)
    assert [(s.benchmark, s.problem_id, s.sample) for s in scores] == [
        (g.benchmark, g.problem_id, g.sample) for g in inputs.generations
    ]
    assert [s.verdict for s in scores[:4]] == ["correct", "wrong", "no_answer", "no_answer"]
    assert [s.verdict for s in scores[4:]] == ["correct", "wrong"] * 3
    metrics = read_json(output / "metrics.json")
    words = metrics["word_problems"]
    assert (words["metric"], words["value"], words["n"], words["k"]) == ("accuracy", 0.25, 4, 1)
    assert words["low"] < 0.25 < words["high"]
    assert words["verdicts"] == {"correct": 1, "wrong": 1, "no_answer": 2, "timeout": 0, "grader_error": 0}
    assert (words["truncated"], words["no_answer"], words["prompt_too_long"]) == (1, 2, 0)
    assert words["thinking"] == {"finished": 1, "forced": 1, "cut": 2, "none": 0}
    assert words["protocol_details"]["sampling"] == inputs.protocol["word_problems"]
    code = metrics["tiny_code"]
    assert "thinking" not in code
    assert (code["metric"], code["value"], code["n"], code["k"]) == ("avg@2", 0.5, 3, 2)
    assert {k: v["value"] for k, v in code["pass_at"].items()} == {"1": 0.5, "2": 1.0}
    assert len(code["protocol"]) == 12 != code["protocol"] != words["protocol"]
    assert read_json(output / "record" / "result.json")["proof"] == {"generations": 10, "scores": 10}
    grading = read_json(output / "record" / "grading.json")
    assert (grading["sandbox_level"] == "namespaces") or grading["sandbox_unprotected"]


@pytest.mark.slow
def test_scoring_again_gives_the_same_bytes_and_the_protocol_follows_its_parts(inputs: Inputs) -> None:
    names = ("scores.jsonl", "metrics.json")
    assert inputs.score() == 0
    first = [(inputs.folder / "output" / name).read_bytes() for name in names]
    assert inputs.score(workers=1) == 0
    assert [(inputs.folder / "output" / name).read_bytes() for name in names] == first
    before = read_json(inputs.folder / "output" / "metrics.json")
    inputs.protocol["word_problems"]["temperature"] = 0.5
    assert inputs.score(code_timeout_s=5.0) == 0
    after = read_json(inputs.folder / "output" / "metrics.json")
    for name in before:
        assert before[name]["protocol"] != after[name]["protocol"]
        assert before[name]["value"] == after[name]["value"]


def test_duplicates_strangers_and_gaps_are_errors_with_their_place(inputs: Inputs) -> None:
    complete = list(inputs.generations)
    first = complete[0]
    for spoiled, message in (
        ([*complete, first], f"generations.jsonl:11: sample 0 of {first.problem_id} occurs twice"),
        (
            [dataclasses.replace(first, problem_id="x"), *complete[1:]],
            "generations.jsonl:1: word_problems has no problem 'x'",
        ),
        (complete[1:], f"3 problems have generations, not 4, {first.problem_id} is missing"),
        (complete[:-1], "has 1 samples, others have 2"),
        (complete[:4], "but the summary's protocols are of ['tiny_code', 'word_problems']"),
        ([], "no generations"),
        ([dataclasses.replace(first, benchmark="mbpp"), *complete[1:]], "mbpp.jsonl"),
    ):
        inputs.generations = spoiled
        assert inputs.score() == 1
        assert message in inputs.error()


def test_too_many_failures_of_the_grader_itself_fail_the_stage(inputs: Inputs) -> None:
    broken = dataclasses.replace(inputs.code[0], tests=inputs.code[0].tests | {"asserts": ["f(3)"]})
    write_jsonl(inputs.folder / "data" / "benchmarks" / "tiny_code.jsonl", [broken, *inputs.code[1:]])
    assert inputs.score() == 1
    assert (
        f"the grader failed on 2 of 6 generations of tiny_code; the first: {broken.id}: not one assert"
        in inputs.error()
    )
    assert inputs.score(max_grader_error_share=0.5) == 0
    metrics = read_json(inputs.folder / "output" / "metrics.json")["tiny_code"]
    assert metrics["verdicts"]["grader_error"] == 2
    assert metrics["verdicts"]["wrong"] == 2


def test_a_stop_ends_the_stage_and_its_programs(inputs: Inputs) -> None:
    sleepy = "```python\nimport time\ndef f(x): time.sleep(600)\n```"
    inputs.generations = [
        dataclasses.replace(g, completion=sleepy) if g.benchmark == "tiny_code" else g for g in inputs.generations
    ]
    process = inputs.start(code_timeout_s=300.0)
    deadline = time.monotonic() + 60
    events = inputs.folder / "run" / "events.jsonl"
    while not (events.exists() and "grading" in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = {
        int(pid)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    }
    assert started
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == EXIT_STOPPED
    assert not (inputs.folder / "output" / "record" / "result.json").exists()
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def test_the_protocol_names_what_can_change_a_verdict(inputs: Inputs) -> None:
    assert inputs.score() == 0, inputs.log
    metrics = read_json(inputs.folder / "output" / "metrics.json")
    assert {"math_verify", "sympy"} <= metrics["word_problems"]["protocol_details"]["scoring"].keys()
    code = metrics["tiny_code"]["protocol_details"]["scoring"]
    assert code["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert code["sandbox_level"] == read_json(inputs.folder / "output" / "record" / "grading.json")["sandbox_level"]


def test_isolation_can_be_required() -> None:
    with Grader(workers=1, sandbox_level="rlimits") as weak:
        check_isolation(weak, ScoreSettings())
        with pytest.raises(StageError, match="isolation level rlimits"):
            check_isolation(weak, ScoreSettings(require_sandbox="namespaces"))


def test_packages_that_programs_may_import_are_in_the_protocol_with_their_versions() -> None:
    said = scoring_protocol("code", ScoreSettings(packages=["numpy"]), "namespaces")
    assert said.pop("packages") == {"numpy": importlib.metadata.version("numpy")}
    assert said == scoring_protocol("code", ScoreSettings(), "namespaces")


def test_the_compiler_is_in_the_protocol_of_programs_in_cpp_alone() -> None:
    tests = {"cases": [{"input": "", "output": "1"}]}
    python, cpp = (Problem("1", "own", "code", "?", "", tests | more) for more in ({}, {"language": "cpp"}))
    assert compiler_of([python]) is None
    assert str(compiler_of([python, cpp])).startswith("g++ ")
