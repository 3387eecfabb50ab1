"""What of a run goes to a tracker: settings, lineage, scores and curves, and what is said where some of it is gone."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from pipeline.export.content import Content, read_content
from pipeline.export.flatten import flatten, identity_of, without_secrets
from pipeline.store.store import Store
from tests.pipeline import helpers
from tests.pipeline.export.runs import COMMIT, GRPO, STEPS, make_run, write_rows


def content(tmp_path: Path, run: str) -> Content:
    return read_content(tmp_path / "home", run)


def artifact(tmp_path: Path, stage: str) -> Path:
    (folder,) = (tmp_path / "home/store" / stage).iterdir()
    return folder


def test_settings_are_those_that_enter_keys_one_name_a_value(tmp_path: Path) -> None:
    found = flatten(content(tmp_path, make_run(tmp_path, "execution.threads=1")).settings)
    assert found["sft.learning_rate"] == "0.002"
    assert found["sft.method.name"] == "vcore"
    assert (found["benchmarks.0.name"], found["data.sft.0.rows"]) == ("word_problems", "64")
    assert found["difficulty"] == "null"
    assert found["data.dev"] == "[]"
    assert not [name for name in found if name.partition(".")[0] in ("execution", "home", "gate", "export", "name")]
    assert "sft.micro_batch_size" not in found


def test_lineage_names_key_commit_and_parents_of_every_artifact(tmp_path: Path) -> None:
    first = content(tmp_path, make_run(tmp_path))
    again = content(tmp_path, make_run(tmp_path))
    keys = {stage: artifact(tmp_path, stage).name for stage in ("data", "base", "sft", "grpo")}
    assert {stage: first.facts[f"key.{stage}"] for stage in keys} == keys
    assert first.facts["inputs.grpo"] == f"data=data/{keys['data']} model=sft/{keys['sft']}"
    assert first.facts["inputs.score.sft"] == f"generations=sft/{keys['sft']}"
    assert "inputs.data" not in first.facts
    assert (first.facts["commit"], first.facts["dirty"]) == (COMMIT, "false")
    assert first.facts["commit.data"] == f"{COMMIT}+changes"
    assert (first.facts["state.sft"], again.facts["state.sft"]) == ("ran", "cached")
    assert first.facts["protocol.word_problems.sft"] == "abc123"
    assert again.facts["commit"] == COMMIT
    assert again.uid != first.uid
    assert first.labels == ["config:small", "seed:0", "model:make"]


def test_scores_have_their_interval_and_the_gate_its_words(tmp_path: Path) -> None:
    found = content(tmp_path, make_run(tmp_path))
    scores = {name: value for name, value in found.metrics.items() if name.startswith("word_problems/grpo/")}
    assert {name.rpartition("/")[2]: value for name, value in scores.items()} == pytest.approx(
        {"score": 0.75, "low": 0.65, "high": 0.85, "n": 20, "samples": 4, "truncated": 0.1, "no_answer": 0.05}
        | {"pass_at_1": 0.75, "pass_at_4": 0.9, "majority": 0.6}
    )
    assert found.metrics["gate/passed"] == 1
    assert found.metrics["stage/sft/seconds"] == 2.5
    assert found.facts["gate"] == "PASS"
    words = "PASS word_problems, grpo (critical): may drop by 1 points against sft; +25.0 points [+10.0, +40.0] of 20"
    assert found.facts["gate.1"].startswith(words)


def test_curves_have_every_number_of_every_row_also_of_cached_stages(tmp_path: Path) -> None:
    make_run(tmp_path)
    sft, grpo = content(tmp_path, make_run(tmp_path)).curves
    assert (sft.stage, len(sft.rows)) == ("sft", STEPS)
    assert sft.rows[0] == (1, {"loss": 2.0, "kl": 0.05})  # what is no number is no curve
    assert sft.time.isoformat() == "2026-01-01T00:00:03+00:00"
    assert [step for step, _ in grpo.rows] == [row["step"] for row in GRPO]
    assert math.isnan(grpo.rows[2][1]["reward"])


def test_a_failed_run_has_what_it_got_to(tmp_path: Path) -> None:
    found = content(tmp_path, make_run(tmp_path, until="sft", status="failed", error="stage grpo: out of memory"))
    assert (found.facts["status"], found.facts["error"]) == ("failed", "stage grpo: out of memory")
    assert [curve.stage for curve in found.curves] == ["sft"]
    assert (found.files, found.trouble) == ([], [])
    assert not [name for name in found.metrics if name.startswith(("word_problems/", "gate/"))]


def test_what_is_gone_or_damaged_is_left_out_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    shutil.rmtree(artifact(tmp_path, "sft"))
    write_rows(artifact(tmp_path, "grpo") / "record/metrics.jsonl", [{"step": 1, "reward": 1.0}])
    found = content(tmp_path, run)
    assert found.trouble == [
        "sft: its artifact is gone from the store, and with it inputs and curve",
        "grpo: record/metrics.jsonl is damaged and left out",
    ]
    assert found.curves == []
    assert "key.sft" in found.facts
    assert "inputs.sft" not in found.facts
    assert found.metrics["word_problems/sft/score"] == 0.5


def test_scores_of_an_artifact_that_is_gone_are_those_of_the_report(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    shutil.rmtree(tmp_path / "home/store/score")
    lost = content(tmp_path, run)
    assert "score.sft: its scores are lost" in lost.trouble
    result = {"benchmark": "word_problems", "checkpoint": "sft", "metric": "accuracy", "value": 0.5}
    result |= {"low": 0.4, "high": 0.6, "n": 20, "k": 1, "protocol": "abc123"}
    (tmp_path / "home/runs" / run / "report.json").write_text(json.dumps({"results": [result]}))
    assert content(tmp_path, run).metrics["word_problems/sft/high"] == 0.6


def test_a_config_of_another_version_still_gives_its_identity_settings(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    file = tmp_path / "home/runs" / run / "config.json"
    config = json.loads(file.read_text())
    config["sft"]["momentum"] = 0.9  # which is no setting any more
    file.write_text(json.dumps(config))
    found = flatten(content(tmp_path, run).settings)
    assert (found["sft.momentum"], found["sft.learning_rate"]) == ("0.9", "0.002")
    assert not [name for name in found if name.startswith(("execution", "home", "sft.micro_batch_size"))]
    file.write_text("{")
    damaged = content(tmp_path, run)
    assert damaged.settings == {}
    assert "config.json cannot be read" in damaged.trouble[0]


def test_both_ways_to_the_identity_settings_agree(tmp_path: Path) -> None:
    """The one for configs of other versions knows less: it may keep a setting too many, and loses none."""
    config = helpers.config(tmp_path, "export=mlflow")
    rough = flatten(identity_of(config.model_dump(mode="json")))
    exact = flatten(config.identity_settings())
    assert exact.items() <= rough.items()
    assert {name.partition(".")[0] for name in rough} - {name.partition(".")[0] for name in exact} <= {"sandbox"}


def test_passwords_of_addresses_leave_no_machine() -> None:
    given = {"model": "http://ada:hunter2@host:80/v1", "list": ["s3://key:secret@bucket"], "rate": 0.1}
    assert without_secrets(given) == {"model": "http://***@host:80/v1", "list": ["s3://***@bucket"], "rate": 0.1}
    assert without_secrets("12:30 mail to ada@host") == "12:30 mail to ada@host"


def test_a_page_that_is_large_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    assert [file.name for file in content(tmp_path, run).files] == ["report.md", "report.html"]
    monkeypatch.setattr("pipeline.export.content.MOST_REPORT_BYTES", 15)
    found = content(tmp_path, run)
    assert [file.name for file in found.files] == ["report.md"]
    assert found.trouble[0].startswith("report.html is larger than")
    assert read_content(tmp_path / "home", run, report=False).files == []


def test_reading_a_run_reads_no_checkpoint(tmp_path: Path) -> None:
    """Weights of many gigabytes lie beside a curve: a damaged one is not noticed here, since it is not looked at."""
    run = make_run(tmp_path)
    (artifact(tmp_path, "sft") / "payload").write_text("other bytes")
    assert Store(tmp_path / "home").find("sft", artifact(tmp_path, "sft").name).artifact is None
    found = content(tmp_path, run)
    assert [curve.stage for curve in found.curves] == ["sft", "grpo"]
