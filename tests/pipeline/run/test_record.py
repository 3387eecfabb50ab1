"""Run records: who lives, what was killed, folders that go away, records that cannot be read."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import ConfigError, StoreError
from pipeline.run.documents import PlannedEntry, StageEntry
from pipeline.run.gc import collect
from pipeline.run.record import RunRecord, find_run, list_runs, load_run, report_of, unreadable_runs
from pipeline.store.store import Store
from tests.pipeline.helpers import config

LIVES = """
import sys, time
from pathlib import Path
from pipeline.run.record import RunRecord
from tests.pipeline.helpers import config
record = RunRecord.start(Path(sys.argv[1]) / "home", config(Path(sys.argv[1])), "vcore run small.yaml", [{"key": "k"}])
print(record.folder, flush=True)
time.sleep(60)
"""


def start(tmp_path: Path) -> RunRecord:
    return RunRecord.start(tmp_path / "home", config(tmp_path), "vcore run small.yaml", [])


def statuses(tmp_path: Path) -> list[str]:
    return [record.status for record in list_runs(tmp_path / "home")]


def test_a_run_that_was_killed_is_seen_to_be(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LIVES, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert statuses(tmp_path) == ["running"]
        process.send_signal(signal.SIGKILL)
    assert json.loads((folder / "run.json").read_text())["status"] == "running", "nobody was there to write it down"
    assert statuses(tmp_path) == ["killed"]
    with pytest.raises(ConfigError, match=r"it did not end \(status: killed\)"):
        report_of(folder)
    shown = CliRunner().invoke(app, ["runs", "--home", str(tmp_path / "home")])
    assert "killed" in shown.output


def test_a_run_without_a_report_says_why_and_what_would_bring_one(tmp_path: Path) -> None:
    parts = "--only score.sft --until sft --force data --from grpo --set seed=1 --rerun-triggers config"
    part = RunRecord.start(tmp_path / "home", config(tmp_path), f"vcore run 'a b.yaml' {parts}", [])
    part.end("done")
    with pytest.raises(ConfigError, match="it ran only a part of the pipeline") as caught:
        report_of(part.folder)
    assert caught.value.fix == "Run all of it: vcore run 'a b.yaml' --set seed=1 --rerun-triggers config."
    whole = start(tmp_path)
    whole.data.stages = [StageEntry(name="report", key="r", state="ran", seconds=1.0)]
    whole.end("done")
    with pytest.raises(ConfigError, match=r"its report.json was removed"):
        report_of(whole.folder)
    report = whole.folder / "report.json"
    for make in (lambda: report.mkdir(), lambda: report.symlink_to("nowhere")):
        make()
        with pytest.raises(ConfigError, match="is a folder or a link to nothing"):
            report_of(whole.folder)
        report.rmdir() if report.is_dir() else report.unlink()
    report.write_text("{}")
    with pytest.raises(ConfigError, match=f"such as {whole.folder.name}"):
        report_of(part.folder)


def test_a_run_shows_the_stage_that_it_is_at_and_how_it_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store(home)
    names = ["data", "score.base", "sft", "score.sft"]
    plan = [{"stage": name, "state": "RUN", "key": None} for name in names]
    command = "vcore run small.yaml --force data --set seed=1 --force sft"
    record = RunRecord.start(home, config(tmp_path), command, plan)
    record.data.stages = [StageEntry(name=name, key="k", state="ran") for name in names[:2]]
    record.stage_begins("sft")

    def shown() -> str:
        return CliRunner().invoke(app, ["show", "--home", str(home)]).output

    def compared() -> str:
        return str(CliRunner().invoke(app, ["compare", "latest:sft", "latest:base", "--home", str(home)]).exception)

    assert re.search(r"  sft +running\n  to come: score.sft\n", shown())
    assert "has no scores of sft: it is running and has not come to them; it has base" in compared()
    record.end("interrupted")
    assert re.search(r"  sft +interrupted\n  not reached: score.sft\n", shown())
    left = "vcore run small.yaml --set seed=1 --force sft"
    assert f"Continue with: {left}\n" in shown()
    said = compared()
    assert "has no scores of sft: it was interrupted before it came to them; it has base" in said
    assert f"Continue it with: {left}" in said
    assert "has no scores of nosuch; it has base" in str(
        CliRunner().invoke(app, ["compare", "latest:nosuch", "latest:base", "--home", str(home)]).exception
    )


def test_a_record_of_an_older_version_is_at_the_first_stage_that_it_lacks(tmp_path: Path) -> None:
    record = start(tmp_path)
    record.data.plan = [PlannedEntry(stage=name, key=None) for name in ("data", "base", "sft")]
    record.data.stages = [StageEntry(name="data", key="k", state="ran")]
    record.end("failed")
    old = json.loads((record.folder / "run.json").read_text())
    del old["under_way"]
    (record.folder / "run.json").write_text(json.dumps(old))
    read = load_run(record.folder)
    assert (read.at, read.left) == (["base"], ["base", "sft"])


def test_a_run_lives_until_it_ends(tmp_path: Path) -> None:
    record = start(tmp_path)
    assert statuses(tmp_path) == ["running"]
    record.end("failed", "it failed")
    assert statuses(tmp_path) == ["failed"]


def test_a_killed_run_keeps_nothing_once_a_whole_one_has_followed(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    folder = store.folder("data", "k" * 64)
    folder.mkdir(parents=True)
    killed = start(tmp_path)
    killed.data.plan = [PlannedEntry(stage="data", key=folder.name)]
    killed.save()
    assert collect(store, keep_last=1, keep_named=(), max_bytes=None) == [], "it is running"
    del killed
    assert statuses(tmp_path) == ["killed"]
    assert collect(store, keep_last=1, keep_named=(), max_bytes=None) == [], "it is the newest of its pipeline"
    whole = start(tmp_path)
    whole.data.stages = [StageEntry(name="report", key="r", state="ran", seconds=1.0)]
    whole.end("done")
    assert [removal.folder for removal in collect(store, keep_last=1, keep_named=(), max_bytes=None)] == [folder]


def test_a_folder_that_is_removed_during_the_run_is_made_again(tmp_path: Path) -> None:
    said: list[str] = []
    record = RunRecord.start(tmp_path / "home", config(tmp_path), "vcore run small.yaml", [], said.append)
    shutil.rmtree(record.folder)
    record.save()
    assert len(said) == 1
    assert "was removed while the run goes on" in said[0]
    assert statuses(tmp_path) == ["running"]
    assert sorted(os.listdir(record.folder)) == ["config.json", "lock", "run.json"]
    record.end("done")
    assert statuses(tmp_path) == ["done"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"id": "x", "stages": 1}'])
def test_a_record_that_cannot_be_read_is_passed_over_and_named(tmp_path: Path, text: str) -> None:
    bad, good = start(tmp_path), start(tmp_path)
    for record in (bad, good):
        record.end("done")
    (bad.folder / "run.json").write_text(text)
    home = tmp_path / "home"
    Store(home)
    assert [record.id for record in list_runs(home)] == [good.folder.name]
    assert unreadable_runs(home) == [bad.folder / "run.json"]
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(find_run(home, bad.folder.name))


def test_commands_name_the_records_that_they_pass_over(tmp_path: Path) -> None:
    good = start(tmp_path)
    good.end("done")
    bad = start(tmp_path)
    (bad.folder / "run.json").write_text("{")
    home = ["--home", str(tmp_path / "home")]
    answer = [sys.executable, "-m", "pipeline", "runs", *home, "--json"]
    shown = subprocess.run(answer, capture_output=True, text=True, check=True)
    assert [record["id"] for record in json.loads(shown.stdout)] == [good.folder.name]
    assert "cannot be read and is passed over" in shown.stderr
    assert isinstance(CliRunner().invoke(app, ["store", "gc", *home]).exception, StoreError), "there is no store yet"


def test_a_record_with_alerts_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Passed over, it would be missing from the list of runs, and gc would take what it made."""
    record = start(tmp_path)
    file = record.folder / "run.json"
    moved = {"benchmark": "gsm8k", "checkpoint": "sft", "before": 0.7, "low": 0.65, "high": 0.75, "after": 0.6}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"moved": [moved | {"protocol_changed": False}]}))
    [read] = list_runs(tmp_path / "home")
    assert read.moved is not None
    assert read.moved[0].after == 0.6
