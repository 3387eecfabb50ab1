"""Inputs of the report stage that are missing, damaged or contradict themselves: each is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stages.report.artifacts import artifact, complete, data, run, scored


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "file", "content", "message"),
    [
        ("score.sft", "scores.jsonl", '{"benchmark": "toy"}\n', "scores.jsonl:1: not a Score"),
        ("score.sft", "scores.jsonl", None, "No such file"),
        ("score.sft", "metrics.json", "{}", "numbers of []"),
        ("score.sft", "metrics.json", '{"toy": {"value": 0.5}}', "'metric' is missing"),
        ("generate.sft", "generations.jsonl", "", "was scored but never generated"),
        ("sft", "manifest.json", "{", "input sft in"),
        ("sft", "manifest.json", '{"key": "00"}', "'preimage' is missing"),
        ("sft", "manifest.json", '{"key": "00", "preimage": {"outside": {}, "settings": {}}}', "'digest' is missing"),
        ("sft", "record/metrics.jsonl", '{"loss": 1.0}\n', "a row has no step"),
        ("sft", "record/metrics.jsonl", "{broken\n", "metrics.jsonl:1"),
        ("data", "summary.json", None, "No such file"),
        ("data", "benchmarks/toy.jsonl", "", "is not among the data's problems"),
    ],
)
def test_a_damaged_input_is_one_clear_error(
    tmp_path: Path, where: str, file: str, content: str | None, message: str
) -> None:
    inputs = complete(tmp_path)
    path = inputs[where] / file
    path.unlink() if content is None else path.write_text(content)
    answer = run(tmp_path, inputs)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    error = json.loads((tmp_path / "error.json").read_text())
    assert message in error["message"]
    assert error["fix"]


@pytest.mark.slow
@pytest.mark.parametrize(("field", "value"), [("value", 0.6), ("n", 21), ("verdicts", {"correct": 20}), ("low", 0.9)])
def test_numbers_that_the_scores_do_not_bear_out_are_refused(tmp_path: Path, field: str, value: object) -> None:
    inputs = complete(tmp_path)
    path = inputs["score.sft"] / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["toy"][field] = value
    path.write_text(json.dumps(metrics))
    assert run(tmp_path, inputs).returncode == 1
    assert "scores.jsonl" in json.loads((tmp_path / "error.json").read_text())["message"]


def test_one_protocol_on_different_problems_is_refused(tmp_path: Path) -> None:
    inputs = {
        "data": data(tmp_path, 20),
        **scored(tmp_path, "base", [["wrong"]] * 20),
        **scored(tmp_path, "sft", [["wrong"]] * 19),
    }
    assert run(tmp_path, inputs).returncode == 1
    assert "not scored on the same problems" in json.loads((tmp_path / "error.json").read_text())["message"]


@pytest.mark.parametrize("missing", ["data", "generate.sft"])
def test_a_missing_input_is_named(tmp_path: Path, missing: str) -> None:
    inputs = complete(tmp_path)
    del inputs[missing]
    assert run(tmp_path, inputs).returncode == 1
    assert f"input {missing} is missing" in json.loads((tmp_path / "error.json").read_text())["message"]


def test_nothing_scored(tmp_path: Path) -> None:
    assert run(tmp_path, {"data": data(tmp_path, 1), "sft": artifact(tmp_path, "sft")}).returncode == 1
    assert "no scores" in json.loads((tmp_path / "error.json").read_text())["message"]
