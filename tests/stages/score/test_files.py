"""The scoring of files of generations from elsewhere."""

import dataclasses
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get
from evaluation.grading import Grader
from evaluation.loading import LoadError, load
from evaluation.records import Problem, RecordError, write_jsonl
from stages.grading.grade import grade
from stages.score.files import score_file
from stages.score.rows import read_any
from stages.score.settings import ScoreSettings
from tests.evaluation.benchmarks.test_contest import aime_rows
from tests.stages.score.cases import generation


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
        def __init__(self, workers: int, *limits: Any, **packages: Any) -> None:
            started.append(workers)
            super().__init__(workers, *limits, **packages)

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
    for lacking in ({"id": "a", "completion": "", "gold": "1"}, {"problem_id": "a", "completion": ""}):
        with pytest.raises(RecordError, match=r"g.jsonl:1: a row needs problem_id, completion and gold; this one has"):
            score_file("maths", write_jsonl_at(tmp_path / "g.jsonl", [lacking]))


def test_a_gold_may_be_a_number_too_large_for_a_float(tmp_path: Path) -> None:
    row = {"problem_id": "a", "completion": f"\\boxed{{{10**400}}}", "gold": 10**400}
    metrics, _ = score_file("maths", write_jsonl_at(tmp_path / "g.jsonl", [row]))
    assert metrics["value"] == 1.0


def test_evalplus_samples(tmp_path: Path) -> None:
    rows = [{"task_id": "HumanEval/0", "solution": "def f(): pass", "_identifier": "x"}] * 2 + [
        {"task_id": 1, "solution": ""}
    ]
    path = write_jsonl_at(tmp_path / "g.jsonl", rows)
    read = read_any("humaneval_plus", path, {})
    assert [(g.problem_id, g.sample, g.completion) for g in read.generations.values()] == [
        ("HumanEval/0", 0, "def f(): pass"),
        ("HumanEval/0", 1, "def f(): pass"),
        ("HumanEval/1", 0, ""),
    ]
    assert read.ignored == ("_identifier",)
    write_jsonl_at(path, [{"task_id": "Mbpp/11", "solution": ""}, {"task_id": 12, "solution": ""}])
    assert [g.problem_id for g in read_any("mbpp", path, {}).generations.values()] == ["11", "12"]
    assert [g.problem_id for g in read_any("mbpp_plus", path, {}).generations.values()] == ["Mbpp/11", "Mbpp/12"]


def test_a_completion_goes_on_with_the_benchmarks_beginning(tmp_path: Path) -> None:
    """evalplus' other form: the body alone, a whole function, or an answer with a fence; the program is beginning and
    completion."""
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
    generations = list(read_any("humaneval", path, {problem.id: problem}).generations.values())
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
    assert [(g.problem_id, g.sample, g.finish_reason) for g in read.generations.values()] == [
        ("11", 0, "unknown"),
        ("11", 1, "stop"),
        ("12", 0, "length"),
    ]
    assert read.generations[3].prompt == "<think>"
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
