"""The record of every run: what was asked, what each stage did, where the report is."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.execute import Outcome
from pipeline.watch import moved_scores, predecessor
from stages.runtime import write_json


@dataclasses.dataclass
class RunRecord:
    """One run's folder, `HOME/runs/ID/`, with `run.json`, `config.json` and a copy of the report."""

    folder: Path
    data: dict[str, Any]
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    @classmethod
    def start(cls, home: Path, config: PipelineConfig, command: str, plan: list[dict[str, Any]]) -> RunRecord:
        started = datetime.datetime.now(datetime.UTC)
        folder = home / "runs" / f"{started:%Y%m%d-%H%M%S}-{config.name}"
        suffix = 1
        while True:
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                suffix += 1
                folder = folder.with_name(f"{started:%Y%m%d-%H%M%S}-{config.name}-{suffix}")
        write_json(folder / "config.json", config.model_dump(mode="json"))
        data = {
            "id": folder.name,
            "name": config.name,
            "command": command,
            "pid": os.getpid(),
            "started": started.isoformat(timespec="seconds"),
            "ended": None,
            "status": "running",
            "error": None,
            "plan": plan,
            "stages": [],
            "outside": {},  # what the stages read from outside the store: label -> hub and commit, or sha256
        }
        record = cls(folder, data)
        record.save()
        return record

    def stage_done(self, outcome: Outcome) -> None:
        """Called by threads where stages run at once."""
        with self._lock:
            self.data["stages"].append({**outcome.as_json(), "folder": str(outcome.artifact.folder)})
            order = [planned["stage"] for planned in self.data["plan"]]
            self.data["stages"].sort(key=lambda stage: order.index(stage["name"]) if stage["name"] in order else 0)
            self.data["outside"] |= outcome.artifact.manifest["preimage"]["outside"]
            self.save()

    def end(self, status: str, error: str | None = None) -> None:
        """`status`: done, failed or interrupted."""
        self.data.update(status=status, error=error, ended=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        self.save()

    def keep_report(self, artifact: Path) -> Path:
        """Copy the report next to the run record, and return the page to open.

        The copy of report.json also says what the stages read from outside the store, so that it is enough to run the result again on
        the same data, wherever the file is taken.
        """
        for name in ("report.md", "report.html"):
            shutil.copyfile(artifact / name, self.folder / name)
        report = json.loads((artifact / "report.json").read_text(encoding="utf-8"))
        write_json(self.folder / "report.json", {**report, "outside": self.data["outside"]})
        return self.folder / "report.html"

    def compare_with_predecessor(self) -> None:
        """Note in the record which scores left the interval they had in the run of this pipeline before."""
        report = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        before = predecessor(self.folder.parent, self.data["name"], report["seed"], self.folder.name)
        self.data["predecessor"] = before["run"] if before is not None else None
        self.data["moved"] = moved_scores(before["results"], report["results"]) if before is not None else []

    def save(self) -> None:
        write_json(self.folder / "run.json", self.data)


def list_runs(home: Path) -> list[dict[str, Any]]:
    """Every run's record, oldest first."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted((home / "runs").glob("*/run.json"))]


def find_run(home: Path, name: str) -> Path:
    """The folder of a run, by its id or an unambiguous beginning of it, or `latest`."""
    folders = sorted(file.parent for file in (home / "runs").glob("*/run.json"))
    if name == "latest" and folders:
        return folders[-1]
    matching = [folder for folder in folders if folder.name == name] or [folder for folder in folders if folder.name.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ConfigError(f"{name!r} stands for {len(matching)} runs", fix="One of: " + ", ".join(f.name for f in matching[-5:]))
    raise ConfigError(f"there is no run {name!r} in {home / 'runs'}", fix="List them with: vcore runs")


def report_of(run: Path) -> Path:
    """A run's report.json. Raises `ConfigError` where the run has none, and says why and how it gets one."""
    file = run / "report.json"
    if not file.is_file():
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        why = "it ran only a part of the pipeline" if record["status"] == "done" else f"it did not end (status: {record['status']})"
        raise ConfigError(f"run {run.name} has no report: {why}", fix=f"Continue it first: {record['command']}")
    return file


def outside_of(report: dict[str, Any], home: Path) -> dict[str, Any]:
    """What a run's stages read from outside: as its report.json says, else (older records) as the manifests say that are still in `home`.

    Label -> {hub, commit} or {sha256}; empty where nothing is known, or nothing was read.
    """
    if "outside" in report:
        return dict(report["outside"])
    found: dict[str, Any] = {}
    for stage in report["stages"]:
        manifest = home / "store" / stage["name"].partition(".")[0] / stage.get("key", "unknown") / "manifest.json"
        if manifest.is_file():
            found |= json.loads(manifest.read_text(encoding="utf-8")).get("preimage", {}).get("outside", {})
    return found
