"""The cells of a sweep as their runs left them, and groups of cells that differ in nothing but their seed."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evaluation.comparison import Measured, read_measured
from evaluation.records import read_rows
from pipeline.run.documents import RunRecordDocument, StageEntry
from pipeline.store.documents import Manifest
from pipeline.sweep.documents import CellRecord, SweepRecord
from pipeline.sweep.settings import REPLICATES, Labels
from stages.harness.json_files import read_json
from stages.report.cost import stage_cost
from stages.report.documents import Cost, Measurement, Report
from stages.report.kinds import position

Place = tuple[str, str]
"""A benchmark at a checkpoint."""


@dataclasses.dataclass(frozen=True)
class MeasuredCell:
    """One cell that has a result; of a cell that failed, the results that it had before."""

    home: Path
    labels: Labels
    seed: str
    run: str
    results: dict[Place, Measurement]
    stages: dict[str, StageEntry]
    """Name -> what run.json says of it, of the stages that ended."""
    manifests: dict[str, Manifest]
    """Stage -> manifest of its artifact; without those that are no longer in the store."""
    config: dict[str, Any]
    read: dict[str, dict[str, Measured]] = dataclasses.field(default_factory=dict, repr=False)
    """Checkpoint -> its scores by benchmark, of those that `scores` has read."""

    def checkpoint(self, name: str) -> str | None:
        """What identifies a checkpoint: its content, or its key where the artifact is gone; or None."""
        if name in self.manifests:
            return self.manifests[name].digest
        return self.stages[name].key if name in self.stages else None

    def curve(self, stage: str) -> list[dict[str, Any]]:
        """The rows of a stage's training curve; none where it recorded none."""
        path = self._file(stage, "record/metrics.jsonl")
        return [row for _, row in read_rows(path)] if path is not None else []

    def cost(self, stage: str) -> Cost:
        """Of one of its stages; the seconds alone where the artifact is no longer in the store."""
        seconds, manifest = self.stages[stage].seconds, self.manifests.get(stage)
        if manifest is None:
            return Cost(seconds=seconds)
        gpus, execution = len(manifest.hardware.gpu), self.config.get("execution", {})
        return stage_cost(stage, seconds, manifest.metrics, gpus, manifest.gpus, self.curve(stage), execution)

    def scores(self, place: Place) -> Measured | None:
        """The verdicts behind a result; None where the artifact with them is no longer in the store."""
        benchmark, checkpoint = place
        if checkpoint not in self.read:
            path = self._file(f"score.{checkpoint}", "scores.jsonl")
            self.read[checkpoint] = read_measured(path.parent) if path is not None else {}
        return self.read[checkpoint].get(benchmark)

    def _file(self, stage: str, name: str) -> Path | None:
        """A file of a stage's artifact; None where the run did not come that far, or the file is not there."""
        path = _artifact(self.home, self.stages[stage]) / name if stage in self.stages else None
        return path if path is not None and path.is_file() else None


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that share every label but the seed's."""

    labels: Labels
    cells: list[MeasuredCell]

    @property
    def name(self) -> str:
        """The labels as one phrase; a sweep over seeds alone has none."""
        if len(self.labels) == 1:
            return next(iter(self.labels.values()))
        return ", ".join(f"{axis} {label}" for axis, label in self.labels.items()) or "all"

    def measured(self, place: Place) -> dict[str, MeasuredCell]:
        """Seed -> cell, of the cells that have this result."""
        return {cell.seed: cell for cell in self.cells if place in cell.results}


def read_groups(home: Path, record: SweepRecord) -> list[Group]:
    """The cells of a sweep that have a result, grouped, in the record's order."""
    known: dict[Path, Manifest | None] = {}
    groups: dict[tuple[tuple[str, str], ...], Group] = {}
    for entry in record.cells:
        cell = _cell(home, entry, known)
        if cell is not None:
            groups.setdefault(tuple(cell.labels.items()), Group(cell.labels, [])).cells.append(cell)
    return list(groups.values())


def places(groups: Iterable[Group]) -> list[Place]:
    """Every (benchmark, checkpoint) that any cell has, benchmarks first, each in the order of training.

    Any cell: one that failed before RL, be it the first, must not take RL out of the report.
    """
    measured = list(dict.fromkeys(place for group in groups for cell in group.cells for place in cell.results))
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in measured))
    return sorted(measured, key=lambda place: (benchmarks.index(place[0]), position(place[1])))


def runs_named(home: Path, name: str) -> list[RunRecordDocument]:
    """The records of all runs of a pipeline name, oldest first."""
    records = (RunRecordDocument.read(file) for file in sorted((home / "runs").glob(f"*-{name}*/run.json")))
    return [run for run in records if run is not None and run.name == name]


def run_of_cell(home: Path, cell: CellRecord) -> str | None:
    """Id of the run that a cell made, also of one that failed or was killed; None where it came to none.

    That is the first run of its command that was not there when the cell began. A run of the same name from an earlier
    sweep is not it: it may have had other settings.
    """
    if cell.run is not None or cell.command is None:
        return cell.run
    own = (run.id for run in runs_named(home, cell.name) if run.command == cell.command)
    return next((run for run in own if run not in (cell.earlier_runs or [])), None)


def _cell(home: Path, record: CellRecord, known: dict[Path, Manifest | None]) -> MeasuredCell | None:
    """A cell with what it had scored when it ended, however it ended; None where that is nothing.

    Leaving out cells that failed would leave out just those in which a method went wrong.
    """
    run = run_of_cell(home, record)
    if run is None:
        return None
    folder = home / "runs" / run
    record_of_run = RunRecordDocument.model_validate_json((folder / "run.json").read_bytes())
    stages = {stage.name: stage for stage in record_of_run.stages}
    done = record.status == "done"
    measured = Report.load(folder / "report.json").results if done else _scored_so_far(home, stages)
    results = {(result.benchmark, result.checkpoint): result for result in measured}
    if not results:
        return None
    read = {name: _manifest(_artifact(home, stage), known) for name, stage in stages.items()}
    manifests = {name: manifest for name, manifest in read.items() if manifest is not None}
    labels = {axis: label for axis, label in record.labels.items() if axis != REPLICATES}
    seed = record.labels.get(REPLICATES, "-")
    return MeasuredCell(home, labels, seed, run, results, stages, manifests, read_json(folder / "config.json"))


def _scored_so_far(home: Path, stages: dict[str, StageEntry]) -> Iterator[Measurement]:
    for name, stage in stages.items():
        kind, _, checkpoint = name.partition(".")
        if kind == "score":
            for benchmark, metrics in read_json(_artifact(home, stage) / "metrics.json").items():
                yield Measurement.model_validate({**metrics, "benchmark": benchmark, "checkpoint": checkpoint})


def _artifact(home: Path, stage: StageEntry) -> Path:
    """By key, below this home: the folder in run.json is that of the home at the time, which may have moved since."""
    return home.joinpath("store", stage.name.partition(".")[0], stage.key)


def _manifest(folder: Path, known: dict[Path, Manifest | None]) -> Manifest | None:
    """The manifest in a folder, read once however many cells share it; None where it is gone."""
    if folder not in known:
        path = folder / "manifest.json"
        known[folder] = Manifest.model_validate_json(path.read_bytes()) if path.is_file() else None
    return known[folder]
