"""The score stage as the pipeline runs it, in a process of its own, and the scoring of files from elsewhere."""

import dataclasses
import gzip
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
from evaluation.loading import LoadError, load
from evaluation.records import Generation, Problem, RecordError, Score, read_records, write_jsonl
from stages.harness.context import StageError
from stages.harness.json_files import read_json
from stages.harness.process import EXIT_STOPPED
from stages.score.files import score_file
from stages.score.rows import read_any
from stages.score.run import check_isolation, grade
from stages.score.settings import ScoreSettings
from tests.evaluation.benchmarks.test_contest import aime_rows


def generation(
    problem: Problem, completion: str, sample: int = 0, finish_reason: str = "stop", prompt: str = "?"
) -> Generation:
    return Generation(problem.benchmark, problem.id, sample, prompt, completion, finish_reason, 5, 7, 1)


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
    assert words["protocol_details"]["sampling"] == inputs.protocol["word_problems"]
    code = metrics["tiny_code"]
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


# --- files from elsewhere ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def aime_folder(tmp_path: Path) -> Path:
    """A data folder with thirty made-up problems; the answer to problem N of either paper is N."""
    write_jsonl_at(tmp_path / "aime24" / "aime24.jsonl", aime_rows())
    return tmp_path


def write_jsonl_at(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)
    return path


def test_plain_rows(aime_folder: Path) -> None:
    rows = [
        {"problem_id": "aime24-I-01", "completion": "\\boxed{1}"},
        {"problem_id": "aime24-II-15", "completion": "\\boxed{14}"},
    ]
    metrics, scores = score_file("aime24", write_jsonl_at(aime_folder / "g.jsonl", rows), aime_folder, partial=True)
    assert (metrics["metric"], metrics["value"], metrics["n"], metrics["missing"]) == ("accuracy", 0.5, 2, 28)
    assert [score.verdict for score in scores] == ["correct", "wrong"]
    several = write_jsonl_at(aime_folder / "g.jsonl", rows + rows)
    assert score_file("aime24", several, aime_folder, partial=True)[0]["metric"] == "avg@2"


def test_complete_records(aime_folder: Path) -> None:
    problem = load(get("aime24"), "test", aime_folder)[2]
    path = write_jsonl_at(aime_folder / "g.jsonl", [generation(problem, "so \\boxed{003}", finish_reason="length")])
    metrics, scores = score_file("aime24", path, aime_folder, True, ScoreSettings(workers=1))
    assert (metrics["value"], metrics["truncated"]) == (1.0, 1)
    assert scores[0].gold == "3"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"problem_id": "aime24-I-01"}],
            r"g.jsonl:1: a row needs problem_id and completion, or task_id .* has problem_id",
        ),
        ([{"problem_id": 1, "completion": ""}], r"g.jsonl:1: aime24 has no problem '1'"),
        ([{"problem_id": "aime24-III-01", "completion": ""}], r"g.jsonl:1: aime24 has no problem 'aime24-III-01'"),
        (
            [{"problem_id": "aime24-I-01", "completion": "", "sample": 0}] * 2,
            r"g.jsonl:2: sample 0 of aime24-I-01 occurs twice",
        ),
        (
            [{"problem_id": f"aime24-I-0{i}", "completion": ""} for i in (1, 2, 2)],
            r"aime24-I-01 has 1 samples, others have 2",
        ),
        ([], "no generations"),
    ],
)
def test_bad_rows_are_named(aime_folder: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        score_file("aime24", write_jsonl_at(aime_folder / "g.jsonl", rows), aime_folder)


def test_generations_of_another_benchmark_are_refused(aime_folder: Path) -> None:
    path = write_jsonl_at(aime_folder / "g.jsonl", [generation(Problem("1", "amc23", "maths", "?", "1"), "")])
    with pytest.raises(RecordError, match=r"g.jsonl:1: a generation of amc23, not of aime24"):
        score_file("aime24", path, aime_folder)


def test_a_gap_is_refused_unless_partial(aime_folder: Path) -> None:
    path = write_jsonl_at(aime_folder / "g.jsonl", [{"problem_id": "aime24-I-01", "completion": "\\boxed{1}"}])
    with pytest.raises(
        RecordError, match=r"29 of the 30 problems of aime24 have no generation \(aime24-I-02 is the first\); --partial"
    ):
        score_file("aime24", path, aime_folder)


def test_a_benchmarks_own_file_and_another_digest_another_protocol(aime_folder: Path) -> None:
    path = write_jsonl_at(aime_folder / "g.jsonl", [{"problem_id": "aime24-I-01", "completion": "\\boxed{1}"}])
    file = aime_folder / "aime24" / "aime24.jsonl"
    first = score_file("aime24", path, file, partial=True)[0]
    assert first == score_file("aime24", path, aime_folder, partial=True)[0]
    rows = aime_rows()
    rows[3]["problem"] = "changed"
    second = score_file("aime24", path, write_jsonl_at(aime_folder / "other.jsonl", rows), partial=True)[0]
    assert second["value"] == first["value"]
    assert second["protocol"] != first["protocol"]
    assert second["problems_digest"] != first["problems_digest"] != first["pinned_digest"] == get("aime24").digest


def test_data_that_is_one_array_and_data_that_is_not_there(tmp_path: Path) -> None:
    task = {
        "prompt": "Add one.",
        "code": "def g(x): return x + 1",
        "test_list": ["assert g(1) == 2"],
        "test_imports": [],
    }
    data = tmp_path / "sanitized-mbpp.json.gz"
    data.write_bytes(
        gzip.compress(json.dumps([{"task_id": number, **task} for number in range(427)]).encode(), mtime=0)
    )
    path = write_jsonl_at(tmp_path / "g.jsonl", [{"problem_id": 7, "completion": f"```python\n{task['code']}\n```"}])
    metrics, _ = score_file("mbpp_sanitized", path, data, partial=True)
    assert (metrics["value"], metrics["n"], metrics["missing"]) == (1.0, 1, 426)
    assert metrics["sandbox_level"] in ("namespaces", "rlimits")
    with pytest.raises(LoadError, match=f"^{tmp_path}/aime.jsonl does not exist: name aime24's own file"):
        score_file("aime24", path, tmp_path / "aime.jsonl")
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(RecordError, match=r"sanitized-mbpp.json.gz: damaged"):
        score_file("mbpp_sanitized", path, data)


def test_a_file_is_graded_on_all_cores_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Counted(Grader):
        def __init__(self, workers: int, *limits: Any) -> None:
            started.append(workers)
            super().__init__(workers, *limits)

    monkeypatch.setattr("stages.score.files.Grader", Counted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)))
    path = write_jsonl_at(tmp_path / "g.jsonl", [{"problem_id": "a", "completion": "\\boxed{1}", "gold": "1"}])
    score_file("maths", path)
    score_file("maths", path, settings=ScoreSettings(workers=1))
    assert started == [5, 1]


def test_rows_with_their_own_gold(tmp_path: Path) -> None:
    rows = [
        {"problem_id": "a", "completion": "\\boxed{\\frac{2}{4}}", "gold": "1/2"},
        {"problem_id": "b", "completion": "so 3", "gold": "3", "finish_reason": "length"},
    ]
    metrics, scores = score_file("maths", write_jsonl_at(tmp_path / "g.jsonl", rows))
    assert (metrics["value"], metrics["n"], metrics["truncated"], metrics["missing"]) == (0.5, 2, 1, 0)
    assert [score.verdict for score in scores] == ["correct", "no_answer"]
    for change, message in (
        ({"gold": True}, "g.jsonl:1: gold is True, not text or a number"),
        ({"gold": " "}, "g.jsonl:1: gold is ' '"),
        ({"problem_id": "b"}, "g.jsonl:2: the gold answer of b is '3' here and '1/2' before"),
        ({"finish_reason": "bored"}, "g.jsonl:1: finish_reason is 'bored'"),
    ):
        with pytest.raises(RecordError, match=message):
            score_file("maths", write_jsonl_at(tmp_path / "g.jsonl", [rows[0] | change, rows[1]]))


def test_evalplus_samples(tmp_path: Path) -> None:
    rows = [{"task_id": "HumanEval/0", "solution": "def f(): pass", "_identifier": "x"}] * 2 + [
        {"task_id": 1, "solution": ""}
    ]
    path = write_jsonl_at(tmp_path / "g.jsonl", rows)
    read = read_any("humaneval_plus", path, {})
    assert [(g.problem_id, g.sample, g.completion) for g in read.generations] == [
        ("HumanEval/0", 0, "def f(): pass"),
        ("HumanEval/0", 1, "def f(): pass"),
        ("HumanEval/1", 0, ""),
    ]
    assert read.ignored == ("_identifier",)
    write_jsonl_at(path, [{"task_id": "Mbpp/11", "solution": ""}, {"task_id": 12, "solution": ""}])
    assert [g.problem_id for g in read_any("mbpp", path, {}).generations] == ["11", "12"]
    assert [g.problem_id for g in read_any("mbpp_plus", path, {}).generations] == ["Mbpp/11", "Mbpp/12"]


def test_a_completion_goes_on_with_the_benchmarks_beginning(tmp_path: Path) -> None:
    """evalplus' other form: the body alone, a whole function, or an answer with a fence; the program is beginning and completion."""
    beginning = 'def f(x):\n    """Double."""\n'
    tests = {"entry_point": "f", "setup": "", "asserts": ["assert f(2) == 4"]}
    problem = Problem(
        "HumanEval/0", "humaneval", "code", "?", beginning + "    return 2 * x\n", tests, {"completion": beginning}
    )
    completions = [
        "    return 2 * x\n",
        "    return x\n",
        "def f(x):\n    return x + x\n",
        "Here it is:\n```python\ndef f(x):\n    return 2 * x\n```\n",
        "    return 2 * x\n\ndef main():\n    print(f(",  # cut in the middle of the next function
    ]
    path = write_jsonl_at(
        tmp_path / "g.jsonl", [{"task_id": "HumanEval/0", "completion": text} for text in completions]
    )
    generations = read_any("humaneval", path, {problem.id: problem}).generations
    known = {"humaneval": {problem.id: problem}}
    with Grader(workers=1) as grader:
        verdicts = [graded.verdict for graded in grade(grader, generations, known)]
    assert verdicts == ["correct", "wrong", "correct", "correct", "correct"]
    with pytest.raises(RecordError, match=r"g.jsonl:1: .*has no beginning that a completion could go on with"):
        read_any("humaneval", path, {problem.id: dataclasses.replace(problem, meta={})})


def test_what_others_write_and_what_is_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"problem_id": 11, "completion": "a", "finish_reason": None, "model": "m", "temperature": 0.6},
        {"problem_id": "11", "completion": "b", "finish_reason": "eos", "model": "m"},
        {"problem_id": 12, "completion": "c", "finish_reason": "max_tokens", "prompt": "<think>"},
    ]
    read = read_any("mbpp", write_jsonl_at(tmp_path / "g.jsonl", rows), {})
    assert [(g.problem_id, g.sample, g.finish_reason) for g in read.generations] == [
        ("11", 0, "unknown"),
        ("11", 1, "stop"),
        ("12", 0, "length"),
    ]
    assert read.generations[2].prompt == "<think>"
    assert read.ignored == ("model", "temperature")


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion": None}, "completion is None, not text"),
        ({"prompt": None}, "prompt is None, not text"),
        ({"problem_id": ["a"]}, r"the problem's id is \['a'\], not text or a whole number"),
        ({"problem_id": True}, "the problem's id is True"),
        ({"sample": "0"}, "sample is '0', not a whole number"),
        ({"sample": True}, "sample is True, not a whole number"),
        ({"sample": -3}, "sample is -3, not a whole number from 0 up"),
        ({"seed": 1.5}, "seed is 1.5, not a whole number or null"),
        ({"finish_reason": "bored"}, "finish_reason is 'bored', not one of stop, eos"),
        ({"finish_reason": 3}, "finish_reason is 3"),
        ({"benchmark": "amc23"}, "a generation of amc23, not of aime24"),
    ],
)
def test_ill_typed_rows_are_named_with_their_line(
    tmp_path: Path, complete: bool, change: dict[str, Any], message: str
) -> None:
    whole = dataclasses.asdict(generation(Problem("a", "aime24", "maths", "?", "1"), ""))
    row = whole if complete else {"problem_id": "a", "completion": ""}
    path = write_jsonl_at(tmp_path / "g.jsonl", [row, row | {"sample": 1} | change])
    with pytest.raises(RecordError, match=f"g.jsonl:2: {message}"):
        read_any("aime24", path, {})


def test_the_protocol_names_what_can_change_a_verdict(inputs: Inputs) -> None:
    assert inputs.score() == 0, inputs.log
    metrics = read_json(inputs.folder / "output" / "metrics.json")
    assert {"math_verify", "sympy"} <= metrics["word_problems"]["protocol_details"]["scoring"].keys()
    code = metrics["tiny_code"]["protocol_details"]["scoring"]
    assert code["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert code["sandbox_level"] == read_json(inputs.folder / "output" / "record" / "grading.json")["sandbox_level"]


def test_pass_at_every_power_of_two_and_at_all_samples(tmp_path: Path) -> None:
    rows = [
        {"problem_id": "a", "completion": f"\\boxed{{{value}}}", "gold": 3} for value in (3, 3, 1, 1, 1, 1, 1, 1, 1, 1)
    ]
    rows += [{"problem_id": "b", "completion": "\\boxed{4}", "gold": 4.0}] * 10
    metrics, _ = score_file("maths", write_jsonl_at(tmp_path / "g.jsonl", rows))
    assert list(metrics["pass_at"]) == ["1", "2", "4", "8", "10"]
    assert metrics["pass_at"]["1"]["value"] == metrics["value"] == pytest.approx(0.6)
    assert metrics["pass_at"]["10"]["value"] == 1.0


def test_the_majority_votes_by_worth_not_by_text(tmp_path: Path) -> None:
    answers = {
        "a": ["\\frac12", "0.5", "3", ""],
        "b": ["1", "x+1", "1+x", "7"],
        "c": ["2", "5", "", ""],
        "d": ["9", "9", "9", "4"],
    }
    golds = {"a": "1/2", "b": "1", "c": "2", "d": "4"}
    rows = [
        {"problem_id": n, "completion": f"\\boxed{{{x}}}", "gold": golds[n]}
        for n, given in answers.items()
        for x in given
    ]
    metrics, _ = score_file("maths", write_jsonl_at(tmp_path / "g.jsonl", rows))
    assert metrics["majority"]["value"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert metrics["majority"]["low"] < 0.375 < metrics["majority"]["high"]


def test_isolation_can_be_required() -> None:
    with Grader(workers=1, sandbox_level="rlimits") as weak:
        check_isolation(weak, ScoreSettings())
        with pytest.raises(StageError, match="isolation level rlimits"):
            check_isolation(weak, ScoreSettings(require_sandbox="namespaces"))
