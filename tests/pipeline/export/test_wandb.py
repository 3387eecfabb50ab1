"""Runs in the real wandb: offline, as its own files say, and online against a stand-in for its server."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.export import WandbExport
from pipeline.export.process import ExportFailed, export_run
from tests.pipeline.export.real import clean, needs, read_back
from tests.pipeline.export.runs import GRPO, STEPS, make_run
from tests.pipeline.export.wandb_server import serve

pytestmark = [pytest.mark.slow, needs("wandb")]
ROWS = STEPS + len(GRPO) + 1
OFFLINE = WandbExport(mode="offline")
KEY = "0123456789" * 4
READ = """
# The file of an offline run: a header of 7 bytes, then blocks of 32 KiB with pieces of records, each behind 4 bytes of
# a checksum, 2 of its length and 1 of its kind: a whole record (1), or a first (2), middle (3) or last (4) part.
import json, sys
from google.protobuf.json_format import MessageToDict
from wandb.proto import wandb_internal_pb2
data, at, records, parts = open(sys.argv[1], "rb").read(), 7, [], b""
while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    size, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
    parts += data[at + 7:at + 7 + size]
    at += 7 + size
    if kind in (1, 4):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(parts)
        records.append(MessageToDict(record, preserving_proto_field_name=True))
        parts = b""
print(json.dumps(records))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean(monkeypatch, tmp_path)
    return tmp_path / "home"


def records_of(home: Path) -> list[dict[str, Any]]:
    """Every record of the only offline run."""
    (file,) = home.glob("wandb/offline-run-*/*.wandb")
    records: list[dict[str, Any]] = read_back(READ, file)
    return records


def row(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The values of a record, by their names."""
    names = (".".join(item["nested_key"]) if "nested_key" in item else item["key"] for item in items)
    return dict(zip(names, (json.loads(item["value_json"]) for item in items), strict=True))


def test_an_offline_run_is_there_once_with_all_that_it_has(home: Path, tmp_path: Path) -> None:
    name = make_run(tmp_path)
    first = export_run(home, name, OFFLINE)
    assert (first.state, first.points) == ("exported", 2 * STEPS + 3)
    assert first.note == f"To upload it: wandb sync {first.where}"
    assert export_run(home, name, OFFLINE).state == "there"
    records = records_of(home)
    (run,) = [record["run"] for record in records if "run" in record]
    assert (run["run_id"], run["display_name"], run["project"], run["run_group"]) == (first.run, name, "small", "small")
    assert sorted(run["tags"]) == ["config:small", "model:make", "seed:0"]
    config = row(run["config"]["update"])
    assert config["sft"]["learning_rate"] == 0.002
    assert config["vcore"]["inputs.grpo"].startswith("data=data/")
    history = [row(record["history"]["item"]) for record in records if "history" in record]
    assert len(history) == ROWS
    assert [(r["sft/step"], r["sft/loss"]) for r in history[:STEPS]] == [(s, 2.0 / s) for s in range(1, STEPS + 1)]
    assert [r["grpo/step"] for r in history[STEPS:-1]] == [1, 1, 2]
    assert history[-2]["grpo/reward"] in ("NaN", pytest.approx(math.nan, nan_ok=True))
    assert history[-1]["word_problems/grpo/high"] == pytest.approx(0.85)
    files = [file["path"] for record in records for file in record.get("files", {}).get("files", [])]
    assert {"report.md", "report.html"} <= set(files)
    assert (Path(first.where) / "files/report.md").read_text() == "# The report\n"
    (ended,) = [record["exit"] for record in records if "exit" in record]
    assert ended.get("exit_code", 0) == 0


def test_half_an_offline_run_is_written_anew(home: Path, tmp_path: Path) -> None:
    name = make_run(tmp_path, until="sft", status="failed")
    first = export_run(home, name, OFFLINE)
    (Path(first.where) / "vcore-exported").unlink()
    assert export_run(home, name, OFFLINE).state == "exported"
    records = records_of(home)  # of the one folder that there is
    assert len([record for record in records if "history" in record]) == STEPS + 1
    assert [record["exit"]["exit_code"] for record in records if "exit" in record] == [1]


def test_online_a_run_is_sent_once_and_half_of_one_is_completed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_run(tmp_path)
    with serve() as (address, kept):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        first = export_run(home, name, WandbExport())
        assert (first.state, first.where) == ("exported", "ada/small")
        assert first.url.endswith(f"/ada/small/runs/{first.run}")
        assert kept.run is not None
        assert json.loads(kept.run["config"])["sft"]["value"]["learning_rate"] == 0.002
        whole = list(kept.history)
        assert [r["_step"] for r in whole] == list(range(ROWS))
        second = export_run(home, name, WandbExport())
        assert (second.state, second.run) == ("there", first.run)
        assert [r["_step"] for r in kept.history] == list(range(ROWS))
        del kept.history[500:]  # as when the server went away while it was sent
        third = export_run(home, name, WandbExport())
    assert (third.state, third.run) == ("exported", first.run)
    assert [r["_step"] for r in kept.history] == list(range(ROWS))
    assert [r.get("sft/loss") for r in kept.history] == [r.get("sft/loss") for r in whole]
    texts = [file.read_bytes() for file in home.rglob("*") if file.is_file()]
    assert not [text for text in texts if KEY.encode() in text]


def test_a_server_that_is_not_there_is_given_up(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = make_run(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(ExportFailed, match=r"^wandb: "):
        export_run(home, name, WandbExport(time_limit_s=200))
    assert KEY not in (home / "runs" / name / "export-wandb.log").read_text()


def test_where_wandb_is_switched_off_nothing_is_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    sent = export_run(home, make_run(tmp_path), WandbExport())
    assert (sent.state, sent.metrics) == ("off", 0)
    assert not (home / "wandb").exists()
