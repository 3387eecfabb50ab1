"""`vcore score` on the command line: what it prints, and what it refuses before an hour of grading rather than
after."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluation.benchmarks import get
from evaluation.benchmarks.code import ojbench
from evaluation.grading import Grader
from evaluation.loading import load
from evaluation.records import Score, read_records, write_jsonl
from pipeline.cli.app import app
from pipeline.core.errors import ConfigError
from tests.evaluation.benchmarks.contests.ojbench_set import CPP, add_problem


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], env={"VCORE_DATA_DIR": ""})
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"problem_id": 1, "completion": "\\boxed{3}", "gold": 3, "model": "m", "finish_reason": "stop"},
        {"problem_id": 2, "completion": "and \ud83d", "gold": 4, "model": "m", "finish_reason": "length"},
        {"problem_id": 3, "completion": "\\boxed{\ud83d}", "gold": 5},
    ]
    path = tmp_path / "generations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_printed(generations: Path) -> None:
    said = run("maths", generations)
    assert "cut at the token limit: 1, not known of 1; prompt too long to be sampled: 0" in said
    assert "fields that were not looked at: model" in said
    found = json.loads(run("maths", generations, "--json"))
    assert (found["truncated"], found["finish_unknown"], found["ignored_fields"]) == (1, 1, ["model"])
    assert (found["sandbox_level"], found["sandbox_unprotected"]) == (None, [])


def test_half_a_surrogate_pair_does_not_lose_the_scores(generations: Path, tmp_path: Path) -> None:
    run("maths", generations, "--out", tmp_path / "scores.jsonl")
    scores = read_records(tmp_path / "scores.jsonl", Score)
    assert [score.verdict for score in scores] == ["correct", "no_answer", "wrong"]
    assert scores[2].extracted == "\ud83d"


def test_an_out_that_cannot_be_is_refused_before_grading(
    generations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grade(*_: object) -> None:
        raise AssertionError("graded")

    monkeypatch.setattr(Grader, "grade", grade)
    before = generations.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(generations)
    for out, message in (
        (generations, "generations.jsonl is the file that is scored"),
        (tmp_path / "link.jsonl", "link.jsonl is the file that is scored"),
        (tmp_path, "cannot be written"),
        (tmp_path / "nowhere" / "scores.jsonl", r"cannot be written \(No such file"),
        (Path("/proc/scores.jsonl"), "cannot be written"),
    ):
        with pytest.raises(ConfigError, match=message):
            run("maths", generations, "--out", out)
    assert generations.read_bytes() == before
    with pytest.raises(AssertionError, match="graded"):
        run("maths", generations, "--out", tmp_path / "scores.jsonl")
    assert not (tmp_path / "scores.jsonl").exists()


def test_a_mistyped_data_path_is_named(generations: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}/aime24.jsnol does not exist"):
        run("aime24", generations, "--data", tmp_path / "aime24.jsnol")


def test_a_full_disk_at_the_end_still_prints_the_numbers(generations: Path) -> None:
    result = CliRunner().invoke(app, ["score", "maths", str(generations), "--out", "/dev/full", "--json"])
    assert isinstance(result.exception, ConfigError)
    assert "the scores cannot be written" in str(result.exception)
    assert json.loads(result.stdout)["n"] == 3


@pytest.mark.slow
def test_a_second_opinion_is_told_apart_from_the_scores(tmp_path: Path) -> None:
    answers = ["So \\boxed{3}", "So it is \\boxed{3 dollars}", "So \\boxed{4}"]
    rows = [{"problem_id": n, "completion": text, "gold": 3} for n, text in enumerate(answers)]
    file = tmp_path / "generations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone = json.loads(run("maths", file, "--json", "--out", tmp_path / "alone.jsonl"))
    both = json.loads(run("maths", file, "--json", "--second-opinion", "--out", tmp_path / "scores.jsonl"))
    [row] = both.pop("second_opinion")["rows"]
    assert both == alone
    assert (tmp_path / "scores.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert json.loads((tmp_path / "scores.second-opinion.jsonl").read_text()) == row
    assert (row["problem_id"], row["gold"], row["extracted"]) == ("1", "3", "3 dollars")
    said = run("maths", file, "--second-opinion")
    assert "alone: disagrees on 1 of 3 (33.3 % [6.1, 79.2])" in " ".join(said.split())
    assert "1 (sample 0): gold '3', extracted '3 dollars': correct, second opinion wrong" in said


def test_a_second_opinion_that_always_agrees_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "generations.jsonl"
    file.write_text(json.dumps({"problem_id": 1, "completion": "\\boxed{3}", "gold": 3}) + "\n")
    (tmp_path / "scores.second-opinion.jsonl").write_text("of an earlier call\n")
    run("maths", file, "--second-opinion", "--out", tmp_path / "scores.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generations.jsonl", "scores.jsonl"]


def test_a_generated_benchmark_is_scored_on_as_many_problems_as_were_sampled(tmp_path: Path) -> None:
    problems = load(get("word_problems"), "test", limit=3, seed=5)
    rows = [{"problem_id": problem.id, "completion": f"\\boxed{{{problem.gold}}}"} for problem in problems]
    file = tmp_path / "generations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(run("word_problems", file, "--problems", 3, "--problem-seed", 5, "--json"))
    assert (found["n"], found["value"], found["missing"]) == (3, 1.0, 0)
    with pytest.raises(ConfigError, match=r"word_problems is generated: .* --problems N"):
        run("word_problems", file)
    with pytest.raises(ConfigError, match="humaneval: its problems are not generated; leave --problem-seed out"):
        run("humaneval", file, "--problem-seed", 5)
    with pytest.raises(ConfigError, match="leave --problems out"):
        run("maths", file, "--problems", 5)


def test_there_is_no_second_opinion_on_programs(generations: Path) -> None:
    with pytest.raises(ConfigError, match="humaneval: there is a second opinion on maths only"):
        run("humaneval", generations, "--second-opinion")


def test_a_file_that_is_not_there_is_said_before_the_benchmark_is_asked_for(tmp_path: Path) -> None:
    """Of the hub, if there is no local copy: a minute of attempts where it cannot be reached."""
    with pytest.raises(ConfigError, match=r"none\.jsonl does not exist"):
        run("gsm8k", tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="is a folder"):
        run("gsm8k", tmp_path)


def test_problems_that_are_not_graded_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ojbench, "SIZE", 2)
    add_problem(tmp_path / "ojbench", 1000, checker="bridged")
    add_problem(tmp_path / "ojbench", 1001)
    file = tmp_path / "g.jsonl"
    rows = [{"problem_id": f"loj-{n}", "completion": f"```cpp\n{CPP}\n```"} for n in (1000, 1001)]
    write_jsonl(file, rows)
    said = run("ojbench_cpp", file, "--data", tmp_path)
    assert "grader_error 1" in said
    assert "not graded, and so not right: 1 problem (loj-1000)" in said
