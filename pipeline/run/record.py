"""The record of every run: what it was asked for, what became of each stage, and a copy of the report.

A run holds a lock on its folder while it lives, which the kernel frees however it ends: a record that says `running`
and whose lock is free is that of a run that was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import shlex
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.locks import open_lock, try_lock, wait_for_lock
from pipeline.run.documents import FurtherSamples, PlannedEntry, RunRecordDocument, StageEntry
from pipeline.run.execute import StageOutcome
from pipeline.store.documents import Manifest, utc_now
from stages.harness.json_files import write_json

LOCK = "lock"
PARTIAL = ("--only", "--until", "--from", "--force")
"""Options of `vcore run` that choose stages, each followed by one."""


@dataclasses.dataclass
class RunRecord:
    """One run's folder, `HOME/runs/ID/`, with `run.json`, `config.json`, a copy of the report and the lock of the
    living run."""

    folder: Path
    data: RunRecordDocument
    config: dict[str, Any]
    say: Callable[[str], None] = dataclasses.field(default=lambda line: None, repr=False)
    """Is called with warnings for the user."""
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)
    _alive: TextIO | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def start(
        cls,
        home: Path,
        config: PipelineConfig,
        command: str,
        plan: list[dict[str, Any]],
        say: Callable[[str], None] = lambda line: None,
    ) -> RunRecord:
        """Open the record of a run that begins. Raises `OSError` where it cannot be written."""
        started = datetime.datetime.now(datetime.UTC)
        folder = _new_folder(home / "runs", f"{started:%Y%m%d-%H%M%S}-{config.name}")
        data = RunRecordDocument(
            id=folder.name,
            name=config.name,
            command=command,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=started.isoformat(timespec="seconds"),
            ended=None,
            status="running",
            error=None,
            plan=[PlannedEntry.model_validate(planned) for planned in plan],
            stages=[],
            under_way=[],
            outside={},
        )
        record = cls(folder, data, config.model_dump(mode="json"), say)
        record._begin()
        record.save()
        return record

    def _begin(self) -> None:
        """Take the lock and write down the config. The lock comes first: without it a record would say that its run was
        killed."""
        self._alive = open_lock(self.folder / LOCK)  # held until the run ends
        wait_for_lock(self._alive)  # others hold it only for the moment in which they look
        write_json(self.folder / "config.json", self.config)

    def stage_begins(self, name: str) -> None:
        """Note that a stage is under way. Called by threads where stages run at once."""
        with self._lock:
            self.data.under_way = [*(self.data.under_way or []), name]
            self.save()

    def stage_done(self, outcome: StageOutcome) -> None:
        """Called by threads where stages run at once."""
        with self._lock:
            folder = str(outcome.artifact.folder)
            self.data.stages.append(StageEntry.model_validate({**outcome.as_json(), "folder": folder}))
            order = [planned.stage for planned in self.data.plan]
            self.data.stages.sort(key=lambda stage: order.index(stage.name) if stage.name in order else 0)
            self.data.under_way = [name for name in self.data.under_way or [] if name != outcome.stage]
            self.data.outside |= outcome.artifact.manifest.preimage.outside
            self.save()

    def sampled_more(self, further: FurtherSamples) -> None:
        """Note the further samples of a checkpoint on a benchmark; again when they are graded."""
        of = (further.checkpoint, further.benchmark, further.samples)
        with self._lock:
            others = [one for one in self.data.further if (one.checkpoint, one.benchmark, one.samples) != of]
            self.data.further = [*others, further]
            self.save()

    def end(self, status: str, error: str | None = None) -> None:
        """Record how the run ended: `done`, `failed` or `interrupted`.

        A failure that cannot be written down, on a full disk, is a warning: the run has an error of its own, and its
        record reads as that of a killed run.
        """
        self.data.status, self.data.error = status, error
        self.data.ended = utc_now()
        try:
            self.save()
        except OSError as trouble:
            if status == "done":
                raise
            self.say(f"[yellow]the record {self.folder / 'run.json'} could not be written: {trouble.strerror}[/]")
        finally:
            if self._alive is not None:
                self._alive.close()

    def keep_report(self, artifact: Path) -> None:
        """Copy the report beside the record.

        The copy of report.json also says what the stages read from outside the store, so that it alone is enough to
        reproduce the result on the same data, wherever the file is taken.
        """
        for name in ("report.md", "report.html"):
            shutil.copyfile(artifact / name, self.folder / name)
        report = json.loads((artifact / "report.json").read_text(encoding="utf-8"))
        write_json(self.folder / "report.json", {**report, "outside": self.data.to_json()["outside"]})

    def save(self) -> None:
        """Write run.json; and make its folder again where that was removed: what the run computes must not be lost."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            self._begin()
            text = f"the record's folder {self.folder} was removed while the run goes on; it is made again"
            self.say(f"[yellow]{text}[/]")
        self.data.write(self.folder / "run.json")


def _new_folder(parent: Path, name: str) -> Path:
    """A folder of that name that did not exist, with a number added where one did."""
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("numbers do not end")


def read_run(folder: Path) -> RunRecordDocument | None:
    """The record of a run, or None where it cannot be read. Its status is `killed` where its process has gone without
    writing how it ended."""
    record = RunRecordDocument.read(folder / "run.json")
    if record is not None and record.status == "running" and not _alive(folder):
        record.status = "killed"
    return record


def load_run(folder: Path) -> RunRecordDocument:
    """As `read_run`. Raises `ConfigError` where the record cannot be read."""
    record = read_run(folder)
    if record is None:
        where, fix = str(folder / "run.json"), "Name another run: vcore runs"
        raise ConfigError("the record of this run cannot be read", where=where, fix=fix)
    return record


def _alive(folder: Path) -> bool:
    """Whether the run's process lives and holds the lock, on any machine that shares the home; yes where that cannot
    be seen."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            return not try_lock(file, shared=True)
    except FileNotFoundError:
        return False
    except OSError:  # no permission to look
        return True


def list_runs(home: Path) -> list[RunRecordDocument]:
    """Every run's record that can be read, oldest first."""
    return [record for folder in _folders(home) if (record := read_run(folder)) is not None]


def another_with(home: Path, stage: str, *, exact: bool = False) -> str:
    """What to do where the latest run has no such stage, nor, unless `exact`, one of this kind: name the newest run
    that has, if any."""
    for record in reversed(list_runs(home)):
        names = [entry.name for entry in record.stages]
        if stage in names or (not exact and any(name.startswith(f"{stage}.") for name in names)):
            return f"The latest run that has: {record.id}. Others: vcore runs"
    return ""


def unreadable_runs(home: Path) -> list[Path]:
    """The records that `list_runs` leaves out."""
    return [folder / "run.json" for folder in _folders(home) if read_run(folder) is None]


def _folders(home: Path) -> list[Path]:
    return sorted(file.parent for file in (home / "runs").glob("*/run.json"))


def find_run(home: Path, name: str) -> Path:
    """The folder of a run, by its id or an unambiguous beginning of it, or `latest`."""
    folders = _folders(home)
    if not folders:
        fix = "Name the home folder of earlier runs (--home, VCORE_HOME), or begin: vcore run CONFIG"
        raise ConfigError(f"no run is recorded in {home / 'runs'}", fix=fix)
    if name == "latest":
        return folders[-1]
    exact = [folder for folder in folders if folder.name == name]
    matching = exact or [folder for folder in folders if folder.name.startswith(name)]
    if not matching:
        raise ConfigError(f"there is no run {name!r} in {home / 'runs'}", fix="List them with: vcore runs")
    if len(matching) > 1:
        known = ", ".join(folder.name for folder in matching[-5:])
        raise ConfigError(f"{name!r} stands for {len(matching)} runs", fix=f"One of: {known}")
    return matching[0]


def read_report(file: Path, **fields: type) -> dict[str, Any]:
    """A report.json with these fields, of these types. Raises `ConfigError` where it cannot be read or lacks one."""
    fix = "Run the pipeline again: it is written anew, and what is cached stays."
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the report cannot be read ({type(error).__name__})", where=str(file), fix=fix) from None
    for name, kind in fields.items():
        if not isinstance(report, dict) or not isinstance(report.get(name), kind):
            message = f"the report is damaged: {name} is missing, or of another type"
            raise ConfigError(message, where=str(file), fix=fix)
    return dict(report)


def report_of(run: Path) -> Path:
    """A run's report.json. Raises `ConfigError` where the run has none, and says why and how it gets one."""
    file = run / "report.json"
    if file.is_file():
        return file
    record = load_run(run)
    if os.path.lexists(file):
        why = f"{file} is a folder or a link to nothing"
    elif record.status != "done":
        why = f"it did not end (status: {record.status})"
    elif any(stage.name == "report" for stage in record.stages):
        why = "its report.json was removed"
    else:
        why = "it ran only a part of the pipeline"
    others = [folder.name for folder in _folders(run.parent.parent) if (folder / "report.json").is_file()]
    instead = f" Or name a run that has one, such as {others[-1]}." if others else ""
    fix = f"Run all of it: {whole_command(record.command)}.{instead}"
    raise ConfigError(f"run {run.name} has no report: {why}", fix=fix)


def whole_command(command: str) -> str:
    """The command of a run without the options that made it a part, or compute again what is there now."""
    words = iter(shlex.split(command))
    return shlex.join(word for word in words if not (word in PARTIAL and next(words, "") is not None))


def continue_command(record: RunRecordDocument) -> str:
    """The command that goes on where a run ended: it forces nothing again that the run had computed by then."""
    made = {stage.name for stage in record.stages}
    words = shlex.split(record.command)
    pairs = list(zip(words, [*words[1:], ""], strict=True))
    again = [index for index, (word, name) in enumerate(pairs) if word == "--force" and name in made]
    return shlex.join(word for index, word in enumerate(words) if index not in again and index - 1 not in again)


def outside_of(report: dict[str, Any], home: Path) -> dict[str, Any]:
    """What a run's stages read from outside, by label: {hub, commit} or {sha256}. Empty where nothing is known.

    A report.json of an older version does not say it; the manifests do, as far as they are still in `home`.
    """
    if "outside" in report:
        return dict(report["outside"])
    outside: dict[str, Any] = {}
    for stage in report["stages"]:
        folder = home / "store" / stage["name"].partition(".")[0] / stage.get("key", "unknown")
        manifest = Manifest.read(folder / "manifest.json")
        if manifest is not None:
            outside |= {label: entry.to_json() for label, entry in manifest.preimage.outside.items()}
    return outside
