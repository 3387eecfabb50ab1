"""Scores that move: outside the earlier interval, under the same protocol."""

import json
from pathlib import Path

import pytest

from pipeline.run.documents import MovedScore, RecordedScore, RunRecordDocument
from pipeline.run.drift import alert_text, moved_scores, predecessor


def result(value: float, benchmark: str = "aime24", checkpoint: str = "sft", protocol: str = "p") -> RecordedScore:
    return RecordedScore(
        benchmark=benchmark,
        checkpoint=checkpoint,
        value=value,
        low=value - 0.1,
        high=value + 0.1,
        protocol=protocol,
    )


def compared(moved: list[MovedScore]) -> RunRecordDocument:
    """The record of run b, whose scores were compared with those of run a."""
    run = RunRecordDocument.model_validate_json(record("b", "nightly"))
    run.predecessor, run.moved = "a", moved
    return run


def record(run: str, name: str) -> str:
    started = "2026-01-01T00:00:00+00:00"
    fields = {"id": run, "name": name, "command": "vcore run", "started": started, "status": "done"}
    return json.dumps({**fields, "plan": [], "stages": []})


def report(benchmark: str, seed: int) -> str:
    return json.dumps({"results": [result(0.5, benchmark).to_json()], "seed": seed})


def earlier(runs: Path, name: str, seed: int, this: str) -> tuple[str, str] | None:
    """The predecessor's id, and the benchmark of its report."""
    before = predecessor(runs, name, seed, this)
    return (before[0], before[1].results[0].benchmark) if before is not None else None


def test_what_stays_inside_the_interval_has_not_moved() -> None:
    assert moved_scores([result(0.5)], [result(0.59)]) == []
    (moved,) = moved_scores([result(0.5)], [result(0.62)])
    assert (moved.before, moved.after, moved.protocol_changed) == (0.5, 0.62, False)


def test_other_protocols_are_said_and_not_compared() -> None:
    (moved,) = moved_scores([result(0.5)], [result(0.5, protocol="q")])
    assert moved.protocol_changed
    text = alert_text("nightly", compared([moved]))
    assert "another protocol" in text


def test_what_only_one_run_has_is_left_out() -> None:
    assert moved_scores([result(0.5, "amc23")], [result(0.9, "aime24")]) == []
    assert moved_scores([result(0.5, checkpoint="base")], [result(0.9, checkpoint="grpo")]) == []


def test_the_alert_says_which_way() -> None:
    moved = moved_scores([result(0.5), result(0.5, "amc23")], [result(0.7), result(0.3, "amc23")])
    text = alert_text("nightly", compared(moved))
    assert "**aime24, sft: 50.0 → 70.0 %**, above the earlier interval [40.0, 60.0]" in text
    assert "below" in text


def test_the_predecessor_is_the_latest_earlier_run_of_that_name_with_a_report(tmp_path: Path) -> None:
    made = (
        ("1-a", "nightly", True, 0),
        ("2-b", "nightly", True, 0),
        ("3-c", "other", True, 0),
        ("4-d", "nightly", False, 0),
    )
    for run, name, reported, seed in (*made, ("4-e", "nightly", True, 1)):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(record(run, name))
        if reported:
            (tmp_path / run / "report.json").write_text(report(run, seed))
    assert earlier(tmp_path, "nightly", 0, "5-e") == ("2-b", "2-b")
    assert earlier(tmp_path, "nightly", 0, "2-b") == ("1-a", "1-a")
    assert earlier(tmp_path, "nightly", 0, "1-a") is None


@pytest.mark.parametrize(
    ("file", "text"),
    [("report.json", '{"seed": 0'), ("report.json", '{"seed": 0}'), ("run.json", "["), ("run.json", "[]")],
)
def test_a_predecessor_that_cannot_be_read_is_passed_over(tmp_path: Path, file: str, text: str) -> None:
    for run in ("1-a", "2-b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(record(run, "nightly"))
        (tmp_path / run / "report.json").write_text(report(run, 0))
    (tmp_path / "2-b" / file).write_text(text)
    assert earlier(tmp_path, "nightly", 0, "3-c") == ("1-a", "1-a")
