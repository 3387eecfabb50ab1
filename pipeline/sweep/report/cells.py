"""The cells of a sweep as their runs left them, and groups of cells that differ in nothing but their seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evaluation.comparison import Measured, read_measured
from evaluation.records import read_rows
from stages.harness.json_files import read_json
from stages.report.model import CHECKPOINTS

REPLICATES = "seed"
"""The axis that is averaged over."""
Labels = dict[str, str]
Place = tuple[str, str]
"""A benchmark at a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: its seed's label, its run, and every result; of a cell that failed, those before it did.

    Attributes:
        results: (benchmark, checkpoint) -> the numbers that the run's report, or the score's metrics.json, has.
        stages: the stages that ended, as run.json has them.
        manifests: stage -> manifest of its artifact; without those that are no longer in the store.
        config: the run's resolved config.
    """

    home: Path
    seed: str
    run: str
    results: dict[Place, dict[str, Any]]
    stages: list[dict[str, Any]]
    manifests: dict[str, dict[str, Any]]
    config: dict[str, Any]
    read: dict[str, dict[str, Measured]] = dataclasses.field(default_factory=dict, repr=False)
    """Checkpoint -> its scores by benchmark, as far as they have been asked for."""

    def artifact(self, stage: str) -> Path | None:
        """The folder of a stage's artifact, whether or not it is still there; None where the run did not come that far."""
        return next((_artifact(self.home, row) for row in self.stages if row["name"] == stage), None)

    def checkpoint(self, name: str) -> str | None:
        """What identifies a checkpoint: its content, or its key where the artifact is gone; None where the run made none."""
        if name in self.manifests:
            return str(self.manifests[name]["digest"])
        return next((str(row["key"]) for row in self.stages if row["name"] == name), None)

    def curve(self, stage: str) -> list[dict[str, Any]]:
        """The rows of a stage's training curve; none where it recorded none."""
        folder = self.artifact(stage)
        path = folder / "record" / "metrics.jsonl" if folder is not None else None
        return [row for _, row in read_rows(path)] if path is not None and path.is_file() else []

    def scores(self, place: Place) -> Measured | None:
        """The verdicts behind a result; None where the artifact with them is no longer in the store."""
        benchmark, checkpoint = place
        if checkpoint not in self.read:
            folder = self.artifact(f"score.{checkpoint}")
            self.read[checkpoint] = (
                read_measured(folder) if folder is not None and (folder / "scores.jsonl").is_file() else {}
            )
        return self.read[checkpoint].get(benchmark)


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that share every label but the seed's."""

    labels: Labels
    cells: list[Cell]

    @property
    def name(self) -> str:
        """The labels as one phrase; a sweep over seeds alone has none."""
        return (
            ", ".join(self.labels.values())
            if len(self.labels) == 1
            else ", ".join(f"{a} {b}" for a, b in self.labels.items()) or "all"
        )

    def measured(self, place: Place) -> dict[str, Cell]:
        """Seed -> cell, of the cells that have this result."""
        return {cell.seed: cell for cell in self.cells if place in cell.results}


def read_groups(home: Path, record: dict[str, Any]) -> list[Group]:
    """The cells of a sweep's record that have a result, grouped, in the record's order."""
    known: dict[Path, dict[str, Any]] = {}
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for entry in record["cells"]:
        cell = _cell(home, entry, known)
        if cell is not None:
            labels = tuple((axis, label) for axis, label in entry["labels"].items() if axis != REPLICATES)
            groups.setdefault(labels, []).append(cell)
    return [Group(dict(labels), cells) for labels, cells in groups.items()]


def places(groups: Iterable[Group]) -> list[Place]:
    """Every (benchmark, checkpoint) that any cell has, benchmarks first, each in the order of training.

    Any cell: one that failed before RL, be it the first, must not take RL out of the report.
    """
    found = list(dict.fromkeys(place for group in groups for cell in group.cells for place in cell.results))
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in found))
    return sorted(found, key=lambda place: (benchmarks.index(place[0]), CHECKPOINTS.index(place[1])))


def runs_named(home: Path, name: str) -> list[dict[str, Any]]:
    """The records of all runs of a pipeline name, oldest first."""
    found = [read_json(file) for file in sorted((home / "runs").glob(f"*-{name}*/run.json"))]
    return [run for run in found if run["name"] == name]


def run_of_cell(home: Path, entry: dict[str, Any]) -> str | None:
    """Id of the run that a cell of a sweep's record made, also of one that failed or was killed; None where it came to none.

    That is the first run of its command that was not there when the cell began. A run of the same name from an earlier sweep is not it:
    it may have had other settings.
    """
    if entry["run"] is not None or "command" not in entry:
        return str(entry["run"]) if entry["run"] is not None else None
    runs = runs_named(home, entry["name"])
    return next(
        (run["id"] for run in runs if run["command"] == entry["command"] and run["id"] not in entry["earlier_runs"]),
        None,
    )


def _cell(home: Path, entry: dict[str, Any], known: dict[Path, dict[str, Any]]) -> Cell | None:
    """A cell with what it had scored when it ended, however it ended; None where that is nothing.

    Leaving out cells that failed would leave out just those in which a method went wrong.
    """
    run = run_of_cell(home, entry)
    if run is None:
        return None
    folder = home / "runs" / run
    stages = read_json(folder / "run.json")["stages"]
    if entry["status"] == "done":
        results = {(row["benchmark"], row["checkpoint"]): row for row in read_json(folder / "report.json")["results"]}
    else:
        scored = {
            row["name"].partition(".")[2]: _artifact(home, row) for row in stages if row["name"].startswith("score.")
        }
        results = {
            (benchmark, checkpoint): {**metrics, "benchmark": benchmark, "checkpoint": checkpoint}
            for checkpoint, score in scored.items()
            for benchmark, metrics in read_json(score / "metrics.json").items()
        }
    if not results:
        return None
    manifests = {row["name"]: manifest for row in stages if (manifest := _manifest(_artifact(home, row), known))}
    seed = entry["labels"].get(REPLICATES, "-")
    return Cell(home, seed, run, results, stages, manifests, read_json(folder / "config.json"))


def _artifact(home: Path, stage: dict[str, Any]) -> Path:
    """By key, below this home: the folder that run.json names is that of the home when the run was made, which may have moved since."""
    return home.joinpath("store", stage["name"].partition(".")[0], stage["key"])


def _manifest(folder: Path, known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """The manifest in a folder, read once however many cells share it; empty where it is gone."""
    if folder not in known:
        path = folder / "manifest.json"
        known[folder] = read_json(path) if path.is_file() else {}
    return known[folder]
