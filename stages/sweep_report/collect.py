"""Reads a sweep's record and its runs into groups: cells that differ in nothing but their seed."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from evaluation.seeds import SeedEstimate, over_seeds
from stages.runtime import read_json

REPLICATES = "seed"
Labels = dict[str, str]


@dataclasses.dataclass(frozen=True)
class CellResult:
    """One finished cell: its seed's label, its run, and every result by (benchmark, checkpoint)."""

    seed: str
    run: str
    results: dict[tuple[str, str], dict[str, Any]]
    stages: list[dict[str, Any]]
    commit: str | None


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that share every label but the seed's."""

    labels: Labels
    cells: list[CellResult]

    @property
    def name(self) -> str:
        """The labels as one phrase; a sweep over seeds alone has none."""
        return ", ".join(self.labels.values()) if len(self.labels) == 1 else ", ".join(f"{a} {b}" for a, b in self.labels.items()) or "all"

    def values(self, benchmark: str, checkpoint: str) -> dict[str, float]:
        """Seed -> value."""
        return {c.seed: c.results[benchmark, checkpoint]["value"] for c in self.cells if (benchmark, checkpoint) in c.results}


@dataclasses.dataclass(frozen=True)
class Row:
    """One group's line in a table."""

    group: str
    values: dict[str, float]
    """Seed -> value."""
    mean: SeedEstimate
    difference: SeedEstimate | None
    """To the baseline, seed by seed; None for the baseline itself, and where there is none."""
    verdict: str
    truncated: float
    """Share of samples that ended at the token limit, mean over seeds."""
    no_answer: float


@dataclasses.dataclass(frozen=True)
class Table:
    """One benchmark at one checkpoint."""

    benchmark: str
    checkpoint: str
    metric: str
    n: int
    rows: list[Row]
    protocols: list[str]


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step of training changed on a benchmark, seed by seed."""

    benchmark: str
    before: str
    after: str
    group: str
    mean_before: float
    mean_after: float
    difference: SeedEstimate
    verdict: str


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """Everything the report shows."""

    record: dict[str, Any]
    groups: list[Group]
    baseline: str | None
    tables: list[Table]
    steps: list[Step]
    seconds: dict[str, dict[str, SeedEstimate]]
    """Stage -> group -> seconds of one computation, mean over the group's cells."""
    computed_s: float
    """Seconds of the stages that the sweep's artifacts needed, each counted once, whenever it was computed."""
    saved_s: float
    """Seconds that computing every stage of every cell by itself would have taken beyond that."""
    failed: list[dict[str, Any]]


def collect(home: Path, folder: Path) -> SweepReport:
    """Read a sweep's record (`folder/sweep.json`) and the runs of its cells below `home`.

    Raises:
        ValueError: no cell has ended well, so that there is nothing to report.
    """
    record = read_json(folder / "sweep.json")
    by_labels: dict[tuple[tuple[str, str], ...], list[CellResult]] = {}
    for entry in record["cells"]:
        if entry["status"] != "done":
            continue
        labels = tuple((axis, label) for axis, label in entry["labels"].items() if axis != REPLICATES)
        by_labels.setdefault(labels, []).append(_cell(home, entry))
    if not by_labels:
        raise ValueError(f"no cell of {record['id']} has ended well")
    groups = [Group(dict(labels), cells) for labels, cells in by_labels.items()]
    first = groups[0].cells[0].results
    pairs = list(first)
    baseline = record["baseline"] or {}
    checkpoints = list(dict.fromkeys(checkpoint for _, checkpoint in pairs))
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in pairs))
    times = {stage["key"]: float(stage["seconds"]) for group in groups for cell in group.cells for stage in cell.stages}
    every = sum(float(stage["seconds"]) for group in groups for cell in group.cells for stage in cell.stages)
    return SweepReport(
        record=record,
        groups=groups,
        baseline=", ".join(f"{axis} {label}" for axis, label in baseline.items()) or None,
        tables=[_table(b, c, groups, baseline) for b in benchmarks for c in checkpoints if (b, c) in first],
        steps=[
            step
            for b in benchmarks
            for before, after in itertools.pairwise(checkpoints)
            for group in groups
            if (step := _step(b, before, after, group)) is not None
        ],
        seconds=_seconds(groups),
        computed_s=sum(times.values()),
        saved_s=every - sum(times.values()),
        failed=[entry for entry in record["cells"] if entry["status"] != "done"],
    )


def _cell(home: Path, entry: dict[str, Any]) -> CellResult:
    run = home / "runs" / entry["run"]
    report = read_json(run / "report.json")
    results = {(result["benchmark"], result["checkpoint"]): result for result in report["results"]}
    return CellResult(
        entry["labels"].get(REPLICATES, "-"), entry["run"], results, read_json(run / "run.json")["stages"], report["git"]["commit"]
    )


def _partner(group: Group, groups: list[Group], baseline: Labels) -> Group | None:
    """The group that `group` is compared with: the baseline's labels where it names them, its own elsewhere."""
    wanted = {**group.labels, **baseline}
    if not baseline or wanted == group.labels:
        return None
    return next((other for other in groups if other.labels == wanted), None)


def _table(benchmark: str, checkpoint: str, groups: list[Group], baseline: Labels) -> Table:
    rows, protocols = [], set()
    for group in groups:
        values = group.values(benchmark, checkpoint)
        if not values:
            continue
        results = [cell.results[benchmark, checkpoint] for cell in group.cells if (benchmark, checkpoint) in cell.results]
        protocols |= {result["protocol"] for result in results}
        samples = sum(result["n"] * result["k"] for result in results)
        difference = None
        partner = _partner(group, groups, baseline)
        if partner is not None:
            difference = _paired(partner.values(benchmark, checkpoint), values)
        rows.append(
            Row(
                group.name,
                values,
                over_seeds(list(values.values())),
                difference,
                _verdict(difference),
                sum(result["truncated"] for result in results) / samples,
                sum(result["no_answer"] for result in results) / samples,
            )
        )
    any_result = next(c.results[benchmark, checkpoint] for g in groups for c in g.cells if (benchmark, checkpoint) in c.results)
    return Table(benchmark, checkpoint, any_result["metric"], any_result["n"], rows, sorted(protocols))


def _step(benchmark: str, before: str, after: str, group: Group) -> Step | None:
    old, new = group.values(benchmark, before), group.values(benchmark, after)
    difference = _paired(old, new)
    if difference is None:
        return None
    common = old.keys() & new.keys()
    means = [sum(values[seed] for seed in common) / len(common) for values in (old, new)]
    return Step(benchmark, before, after, group.name, means[0], means[1], difference, _verdict(difference))


def _paired(before: dict[str, float], after: dict[str, float]) -> SeedEstimate | None:
    common = [seed for seed in after if seed in before]
    return over_seeds([after[seed] - before[seed] for seed in common]) if common else None


def _verdict(difference: SeedEstimate | None) -> str:
    if difference is None:
        return ""
    if difference.low is None:
        return "one seed: cannot be told"
    if not difference.distinguishable:
        return "not distinguishable"
    return "higher" if difference.mean > 0 else "lower"


def _seconds(groups: list[Group]) -> dict[str, dict[str, SeedEstimate]]:
    names = list(dict.fromkeys(stage["name"] for group in groups for cell in group.cells for stage in cell.stages))
    return {
        name: {
            group.name: over_seeds([float(stage["seconds"]) for cell in group.cells for stage in cell.stages if stage["name"] == name])
            for group in groups
            if any(stage["name"] == name for cell in group.cells for stage in cell.stages)
        }
        for name in names
    }
