"""Reads a sweep's record and its runs into groups: cells that differ in nothing but their seed."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from evaluation.seeds import SeedEstimate, over_seeds
from evaluation.statistics import wilson_interval
from stages.runtime import read_json

REPLICATES = "seed"
Labels = dict[str, str]


@dataclasses.dataclass(frozen=True)
class CellResult:
    """One cell: its seed's label, its run, and every result by (benchmark, checkpoint); of a cell that failed, those before it did."""

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
class Published:
    """A published score beside ours. `inside`: whether it lies in our interval (over seeds, or over problems where there is one seed)."""

    benchmark: str
    checkpoint: str
    label: str
    published: float
    ours: float
    low: float
    high: float
    n: int
    seeds: int

    @property
    def inside(self) -> bool:
        return self.low <= self.published <= self.high


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
    published: list[Published]
    not_measured: list[str]
    """Published scores that no cell of ours stands beside."""


def collect(home: Path, folder: Path) -> SweepReport:
    """Read a sweep's record (`folder/sweep.json`) and the runs of its cells below `home`.

    Raises:
        ValueError: no cell has a score, so that there is nothing to report.
    """
    record = read_json(folder / "sweep.json")
    by_labels: dict[tuple[tuple[str, str], ...], list[CellResult]] = {}
    for entry in record["cells"]:
        cell = _cell(home, entry) if entry["status"] == "done" else _unfinished(home, entry)
        if cell is None:
            continue
        labels = tuple((axis, label) for axis, label in entry["labels"].items() if axis != REPLICATES)
        by_labels.setdefault(labels, []).append(cell)
    if not by_labels:
        raise ValueError(f"no cell of {record['id']} has a score")
    groups = [Group(dict(labels), cells) for labels, cells in by_labels.items()]
    first = groups[0].cells[0].results
    pairs = list(first)
    baseline = record["baseline"] or {}
    checkpoints = list(dict.fromkeys(checkpoint for _, checkpoint in pairs))
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in pairs))
    published, not_measured = _published(record.get("published"), groups)
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
        published=published,
        not_measured=not_measured,
    )


def _cell(home: Path, entry: dict[str, Any]) -> CellResult:
    run = home / "runs" / entry["run"]
    report = read_json(run / "report.json")
    results = {(result["benchmark"], result["checkpoint"]): result for result in report["results"]}
    return CellResult(
        entry["labels"].get(REPLICATES, "-"), entry["run"], results, read_json(run / "run.json")["stages"], report["git"]["commit"]
    )


def _unfinished(home: Path, entry: dict[str, Any]) -> CellResult | None:
    """The scores of a cell that did not end well, from its latest run's finished stages; None where it has none.

    Leaving them out would leave out just the cells in which a method went wrong.
    """
    for run in sorted((home / "runs").glob(f"*-{entry['name']}"), reverse=True):
        stages = read_json(run / "run.json")["stages"]
        scored = {stage["name"].partition(".")[2]: Path(stage["folder"]) for stage in stages if stage["name"].startswith("score.")}
        results = {
            (benchmark, checkpoint): {**metrics, "benchmark": benchmark, "checkpoint": checkpoint}
            for checkpoint, folder in scored.items()
            for benchmark, metrics in read_json(folder / "metrics.json").items()
        }
        if results:
            commit = read_json(next(iter(scored.values())) / "manifest.json")["git"]["commit"]
            return CellResult(entry["labels"].get(REPLICATES, "-"), run.name, results, stages, commit)
    return None


def _partner(group: Group, groups: list[Group], baseline: Labels) -> Group | None:
    """The group that `group` is compared with: the baseline's labels where it names them, its own elsewhere."""
    wanted = {**group.labels, **baseline}
    if not baseline or wanted == group.labels:
        return None
    return next((other for other in groups if other.labels == wanted), None)


def _published(given: dict[str, Any] | None, groups: list[Group]) -> tuple[list[Published], list[str]]:
    """Every published score with ours beside it, and those that nothing of ours stands beside."""
    if given is None:
        return [], []
    wanted = [("base", benchmark, None, value) for benchmark, value in given["base"].items()]
    for checkpoint in ("sft", "grpo"):
        wanted += [(checkpoint, b, label, value) for b, values in given[checkpoint].items() for label, value in values.items()]
    found, missing = [], []
    for checkpoint, benchmarks, label, value in wanted:
        cells = [cell for group in groups if label is None or group.labels[given["axis"]] == label for cell in group.cells]
        ours = [own for cell in cells if (own := _pooled(cell, benchmarks.split("+"), checkpoint)) is not None]
        if not ours:
            missing.append(f"{benchmarks} {checkpoint} {label or ''} {value:g} %".replace("  ", " "))
            continue
        if label is None:  # the same base checkpoint in every cell
            ours = ours[:1]
        estimate, n = over_seeds([own / problems for own, problems in ours]), ours[0][1]
        if estimate.low is None or estimate.high is None:
            low, high = wilson_interval(ours[0][0], n)
        else:
            low, high = estimate.low, estimate.high
        found.append(Published(benchmarks, checkpoint, label or "", value / 100, estimate.mean, low, high, n, estimate.n))
    return found, missing


def _pooled(cell: CellResult, benchmarks: list[str], checkpoint: str) -> tuple[float, int] | None:
    """(expected right answers, problems) of several benchmarks together; None where one of them was not measured."""
    results = [cell.results.get((benchmark, checkpoint)) for benchmark in benchmarks]
    measured = [result for result in results if result is not None]
    if len(measured) < len(results):
        return None
    return sum(result["value"] * result["n"] for result in measured), sum(result["n"] for result in measured)


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
