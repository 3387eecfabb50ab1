"""OJBench's problems, in the form of the hub's repository: made here, since they are not shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import ojbench
from evaluation.graders.programs.tests import case_tests
from evaluation.grading import Grader
from evaluation.loading import LoadError, digest, load
from evaluation.records import Problem, RecordError, read_records
from stages.harness.context import StageError
from stages.score.files import score_file
from stages.score.settings import ScoreSettings
from tests.evaluation.benchmarks.contests.ojbench_set import CPP, PYTHON, add_problem, write_settings
from tests.stages.data.test_data import made
from tests.tiny import write_jsonl

FENCED = {"cpp": f"Here.\n```cpp\n{CPP}\n```", "python": f"```python\n{PYTHON}```"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with two problems that are judged by their outputs, one of each kind of id."""
    monkeypatch.setattr(ojbench, "SIZE", 2)
    add_problem(tmp_path / "ojbench", 1000)
    add_problem(tmp_path / "ojbench", "nwerc2023_A", archive="data.zip", checker={"name": "floats", "args": {}})
    return tmp_path


def only(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Problem:
    """The C++ problem of a set of one, made with these settings."""
    monkeypatch.setattr(ojbench, "SIZE", 1)
    add_problem(folder / "ojbench", 7, **settings)
    return load(ojbench.CPP, "test", folder)[0]


def test_both_languages_are_sets_of_their_own(data: Path) -> None:
    cpp, python = load(ojbench.CPP, "test", data), load(ojbench.PYTHON, "test", data)
    assert [problem.id for problem in cpp] == [problem.id for problem in python] == ["loj-1000", "nwerc2023_A"]
    assert (cpp[0].prompt, python[0].prompt) == (
        "Add two numbers (1000) in cpp.\n",
        "Add two numbers (1000) in python.\n",
    )
    assert cpp[1].meta == {"dataset": "ICPC", "difficulty": "easy", "graded": True}
    assert digest(cpp) != digest(python)
    tests = case_tests(cpp[0].tests)
    assert (tests.language, tests.comparison, tests.time_limit_s, tests.memory_mib) == (
        "cpp",
        "dmoj_standard",
        10,
        1024,
    )
    assert [(case.input, case.output) for case in tests.cases()] == [(b"1 2\n", b"3\n"), (b"5 6\n", b"11\n")]
    assert (case_tests(cpp[1].tests).comparison, case_tests(cpp[1].tests).tolerance) == ("dmoj_floats", 1e-6)


def test_programs_are_judged_by_all_cases_and_a_main_that_is_never_called_is_called(data: Path) -> None:
    [cpp, _], [python, _] = load(ojbench.CPP, "test", data), load(ojbench.PYTHON, "test", data)
    called = PYTHON + "main()\n"
    wrong = CPP.replace("a + b", "a == 5 ? 0 : a + b")
    with Grader(1) as grader:
        graded = grader.grade(
            [
                (cpp, FENCED["cpp"], "stop"),
                (cpp, f"```cpp\n{wrong}\n```", "stop"),
                (cpp, "```cpp\nint main() { return x; }\n```", "stop"),
                (cpp, "It cannot be done.", "stop"),
                (python, FENCED["python"], "stop"),
                (python, f"```python\n{called}```", "stop"),
            ]
        )
    assert [one.verdict for one in graded] == ["correct", "wrong", "wrong", "no_answer", "correct", "correct"], graded
    assert graded[1].detail == "case 2: '0' instead of '11'"


def test_the_memory_of_a_problem_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = only(tmp_path, monkeypatch)
    much = CPP.replace("int main() {", "#include <cstdlib>\nint main() { if (!std::malloc(900 << 20)) return 1;")
    too_much = much.replace("900 << 20", "1100 << 20")
    with Grader(1) as grader:
        graded = grader.grade([(problem, f"```cpp\n{source}\n```", "stop") for source in (much, too_much)])
    assert [one.verdict for one in graded] == ["correct", "wrong"], graded


REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "another program compares": (
        {"checker": {"name": "bridged", "args": {"files": "check.cpp", "lang": "CPP17", "type": "testlib"}}},
        "its checker is not supported: bridged with",
    ),
    "a module compares": ({"checker": "check.py"}, "its checker is not supported: check.py"),
    "lines have points": ({"checker": "linematches"}, "its checker is not supported: linematches"),
    "no checker of DMOJ's": ({"checker": {"name": "sorted", "args": {"split_on": "pages"}}}, "sorted with"),
    "it talks": ({"interactive": {"files": "talk.cpp"}}, "a program that talks to the solution (interactive)"),
    "linked": ({"signature_grader": {"entry": "x.cpp", "header": "x.h"}}, "(signature_grader)"),
    "its own judge": ({"custom_judge": "judge.py"}, "(custom_judge)"),
    "batches": ({"test_cases": [{"batched": [{"in": "data1.in", "out": "data1.out"}]}]}, "in batches"),
    "by names": ({"test_cases": {"input_format": ".*in"}}, "found by their names"),
    "made inputs": ({"test_cases": [{"generator": "make.cpp", "out": "data1.out"}]}, "(generator)"),
    "two checkers": (
        {"test_cases": [{"in": "data1.in", "out": "data1.out", "checker": c} for c in ("standard", "easy")]},
        "different checkers",
    ),
    "no text": ({"cases": [(b"\xff\xfe", "1")]}, "case 1 is not text in UTF-8 (data1.in)"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_judged_here_is_said_by_name_and_never_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, reason = REASONS[name]
    problem = only(tmp_path, monkeypatch, **settings)
    assert problem.meta["graded"] is False
    with Grader(1) as grader:
        [graded] = grader.grade([(problem, FENCED["cpp"], "stop")])
    assert graded.verdict == "grader_error"
    assert graded.detail.startswith("not graded here: ")
    assert reason in graded.detail


def test_problems_that_upstreams_judge_skips_are_passed_by_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ojbench, "SIZE", 1)
    add_problem(tmp_path / "ojbench", 3897)
    [problem] = load(ojbench.PYTHON, "test", tmp_path)
    with Grader(1) as grader:
        [graded] = grader.grade([(problem, FENCED["python"], "stop")])
    assert (graded.verdict, graded.detail) == (
        "grader_error",
        "not graded here: OJBench's own judge skips this problem",
    )


def test_settings_that_its_judge_ignores_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"in": "data1.in", "out": "data1.out", "points": 0}]
    extra = {"time_limit": 1, "points": 10, "unbuffered": True, "output_prefix_length": 5, "generator": None}
    problem = only(tmp_path, monkeypatch, archive=None, test_cases=listed, pretest_test_cases=listed, **extra)
    tests = case_tests(problem.tests)
    assert tests.time_limit_s == 10, "the judge gives every problem ten seconds"
    assert [case.output for case in tests.cases()] == [b"3\n", b"3\n"], "what is tested first comes first"


def test_binary_data_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = only(tmp_path, monkeypatch, cases=[("1\r2", "3")], binary_data=True, checker="identical")
    [case] = case_tests(problem.tests).cases()
    assert (case.input, case.output) == (b"1\r2", b"3")


def test_a_set_that_is_not_whole_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = data / "ojbench/NOI/loj-1000"
    archive = place / "tests.zip"

    def refused(match: str) -> None:
        with pytest.raises(RecordError, match=match):
            load(ojbench.CPP, "test", data)

    good = archive.read_bytes()
    archive.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(r"row 1 \(loj-1000\): .*tests.zip is a pointer of Git LFS")
    archive.write_bytes(good[:-30])
    refused("no zip archive")
    archive.write_bytes(good.replace(b"data2.out", b"data3.out"))
    refused("there is no data2.out, which init.yml names")
    archive.unlink()
    refused("tests.zip does not exist")
    write_settings(place, {"test_cases": [{"in": "../nwerc2023_A/init.yml", "out": ""}]})
    (data / "ojbench/NOI/nwerc2023_A").mkdir()
    (data / "ojbench/NOI/nwerc2023_A/init.yml").write_text("x")
    refused("lies outside the folder")
    write_settings(place, {"test_cases": []})
    refused("no test_cases")
    (place / "init.yml").write_text("- 1")
    refused("expected a mapping, found list")
    (place / "init.yml").unlink()
    refused("init.yml does not exist")
    monkeypatch.setattr(ojbench, "SIZE", 3)
    write_settings(place, {"test_cases": [{"checker": "bridged"}]})
    refused("2 problems, the complete set has 3")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"language": "java"}, "the language is 'java'"),
        ({"id": None}, "the id is None"),
        ({"id": "../x"}, "is no name of a folder"),
        ({"prompt": " "}, "column 'prompt' is empty"),
    ],
)
def test_rows_that_are_not_as_they_should_be_are_named(data: Path, changed: dict[str, Any], message: str) -> None:
    file = data / "ojbench/prompts/full.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    write_jsonl(file, [rows[0] | changed, *rows[1:]])
    with pytest.raises(RecordError, match=f"ojbench_cpp, row 1: .*{message}"):
        load(ojbench.CPP, "test", data)
    file.unlink()
    with pytest.raises(LoadError, match=r"full.jsonl does not exist .*a copy of He-Ren/OJBench_testdata"):
        load(ojbench.CPP, "test", data)


def test_a_score_says_what_is_not_graded_and_does_not_take_it_for_a_failure(data: Path, tmp_path: Path) -> None:
    write_settings(data / "ojbench/NOI/loj-1000", {"test_cases": [{}], "checker": "bridged"})
    file = tmp_path / "g.jsonl"
    rows = [{"problem_id": name, "completion": FENCED["cpp"]} for name in ("loj-1000", "nwerc2023_A")]
    write_jsonl(file, rows)
    metrics, scores = score_file("ojbench_cpp", file, data)
    assert [score.verdict for score in scores] == ["grader_error", "correct"]
    assert (metrics["value"], metrics["n"], metrics["verdicts"]["grader_error"]) == (0.5, 2, 1)
    assert metrics["not_graded"] == {"loj-1000": "its checker is not supported: bridged"}
    assert metrics["protocol_details"]["scoring"]["not_graded"] == 1
    write_jsonl(file, rows[1:])
    other, _ = score_file("ojbench_cpp", file, data, partial=True)
    assert "not_graded" not in other | other["protocol_details"]["scoring"]


def test_failures_on_problems_that_are_graded_count_among_those_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(data / "ojbench/NOI/loj-1000", {"test_cases": [{}], "checker": "bridged"})
    file = tmp_path / "g.jsonl"
    write_jsonl(file, [{"problem_id": name, "completion": FENCED["cpp"]} for name in ("loj-1000", "nwerc2023_A")])
    monkeypatch.setitem(ojbench.RULES, "memory_mib", 63)  # which every program's tests are refused for
    for share in (0.01, 0.99):
        with pytest.raises(
            StageError, match="the grader failed on 1 of 1 generations of ojbench_cpp; the first: nwerc"
        ):
            score_file("ojbench_cpp", file, data, settings=ScoreSettings(max_grader_error_share=share))


def test_the_data_stage_names_what_is_not_graded_and_where_leaves_it_out(data: Path, tmp_path: Path) -> None:
    write_settings(data / "ojbench/NOI/loj-1000", {"test_cases": [{}], "checker": "bridged"})
    output = made(tmp_path / "out", data, benchmarks=[{"name": "ojbench_cpp"}])
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))["benchmarks"]["ojbench_cpp"]
    assert summary["not_graded"] == {"loj-1000": "its checker is not supported: bridged"}
    chosen = made(tmp_path / "chosen", data, benchmarks=[{"name": "ojbench_cpp", "where": {"graded": True}}])
    [problem] = read_records(chosen / "benchmarks/ojbench_cpp.jsonl", Problem)
    assert problem.id == "nwerc2023_A"
    assert Path(problem.tests["packed"]["file"]).is_relative_to(chosen / "benchmarks/ojbench_cpp.cases")
