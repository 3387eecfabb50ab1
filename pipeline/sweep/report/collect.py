"""Reads a sweep's record and its runs into what the report shows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.seeds import SeedEstimate, over_seeds
from pipeline.sweep.report.cells import Cell, Group, Labels, Place, places, read_groups
from pipeline.sweep.report.changes import Change, Value, change, value
from pipeline.sweep.report.published import Published, beside
from stages.harness.json_files import read_json
from stages.report.cost import Cost, stage_cost, total
from stages.report.model import CHECKPOINTS


@dataclasses.dataclass(frozen=True)
class Row:
    """One group's line in a table."""

    group: str
    values: dict[str, float]
    """Seed -> value."""
    mean: Value
    difference: Change | None
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
    difference: Change
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
    costs: dict[str, dict[str, Cost]]
    """Group -> stage program -> what a cell's stages of that program cost, mean over the group's cells."""
    spent: Cost
    """By the stages that the sweep's artifacts needed, each counted once, whenever it was computed."""
    saved_s: float
    """Seconds that computing every stage of every cell by itself would have taken beyond that."""
    failed: list[dict[str, Any]]
    published: list[Published]
    not_measured: list[str]
    """Published scores that no cell of ours stands beside."""

    @property
    def comparisons(self) -> int:
        """How many differences were tested, any of which chance may have made."""
        changes = [row.difference for table in self.tables for row in table.rows] + [
            step.difference for step in self.steps
        ]
        return sum(found is not None and found.tested for found in changes)


def collect(home: Path, folder: Path) -> SweepReport:
    """Read a sweep's record (`folder/sweep.json`) and the runs of its cells below `home`.

    Raises:
        ValueError: no cell has a score, so that there is nothing to report.
        OSError, ValueError: a file of a run is missing or damaged.
    """
    record = read_json(folder / "sweep.json")
    groups = read_groups(home, record)
    if not groups:
        raise ValueError(f"no cell of {record['id']} has a score")
    baseline = record["baseline"] or {}
    published, not_measured = beside(record.get("published"), groups)
    once = {stage["key"]: (cell, stage) for cell, stage in _stages(groups)}
    spent = total(_cost(cell, stage) for cell, stage in once.values())
    return SweepReport(
        record=record,
        groups=groups,
        baseline=", ".join(f"{axis} {label}" for axis, label in baseline.items()) or None,
        tables=[_table(place, groups, baseline) for place in places(groups)],
        steps=list(_steps(groups)),
        seconds=_seconds(groups),
        costs={group.name: _costs(group) for group in groups},
        spent=spent,
        saved_s=sum(float(stage["seconds"]) for _, stage in _stages(groups)) - spent.seconds,
        failed=[entry for entry in record["cells"] if entry["status"] != "done"],
        published=published,
        not_measured=not_measured,
    )


def _stages(groups: list[Group]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    return ((cell, stage) for group in groups for cell in group.cells for stage in cell.stages)


def _partner(group: Group, groups: list[Group], baseline: Labels) -> Group | None:
    """The group that `group` is compared with: the baseline's labels where it names them, its own elsewhere."""
    wanted = {**group.labels, **baseline}
    if not baseline or wanted == group.labels:
        return None
    return next((other for other in groups if other.labels == wanted), None)


def _table(place: Place, groups: list[Group], baseline: Labels) -> Table:
    rows, results = [], []
    for group in groups:
        cells = group.measured(place)
        if not cells:
            continue
        mine = [cell.results[place] for cell in cells.values()]
        results += mine
        samples = sum(result["n"] * result["k"] for result in mine)
        partner = _partner(group, groups, baseline)
        difference = change(partner.measured(place), place, cells, place) if partner is not None else None
        rows.append(
            Row(
                group.name,
                {seed: cell.results[place]["value"] for seed, cell in cells.items()},
                value(cells, place),
                difference,
                difference.verdict if difference is not None else "",
                sum(result["truncated"] for result in mine) / samples,
                sum(result["no_answer"] for result in mine) / samples,
            )
        )
    return Table(
        *place, results[0]["metric"], results[0]["n"], rows, sorted({result["protocol"] for result in results})
    )


def _steps(groups: list[Group]) -> Iterator[Step]:
    """From each checkpoint to the next that was measured on the same benchmark."""
    for benchmark in dict.fromkeys(benchmark for benchmark, _ in places(groups)):
        having = [name for name in CHECKPOINTS if (benchmark, name) in places(groups)]
        for before, after in itertools.pairwise(having):
            for group in groups:
                old, new = group.measured((benchmark, before)), group.measured((benchmark, after))
                found = change(old, (benchmark, before), new, (benchmark, after))
                if found is not None:
                    common = [seed for seed in new if seed in old]
                    first = fmean(old[seed].results[benchmark, before]["value"] for seed in common)
                    second = fmean(new[seed].results[benchmark, after]["value"] for seed in common)
                    yield Step(benchmark, before, after, group.name, first, second, found, found.verdict)


def _seconds(groups: list[Group]) -> dict[str, dict[str, SeedEstimate]]:
    out: dict[str, dict[str, SeedEstimate]] = {}
    for name in dict.fromkeys(stage["name"] for _, stage in _stages(groups)):
        taken = {
            group.name: [float(s["seconds"]) for cell in group.cells for s in cell.stages if s["name"] == name]
            for group in groups
        }
        out[name] = {group: over_seeds(seconds) for group, seconds in taken.items() if seconds}
    return out


def _costs(group: Group) -> dict[str, Cost]:
    out: dict[str, Cost] = {}
    for program in dict.fromkeys(stage["name"].partition(".")[0] for _, stage in _stages([group])):
        of_cells = []
        for cell in group.cells:
            mine = [_cost(cell, stage) for stage in cell.stages if stage["name"].partition(".")[0] == program]
            of_cells += [total(mine)] if mine else []  # a cell that failed before it says nothing of what it costs
        summed = total(of_cells)
        out[program] = Cost(*(getattr(summed, field.name) / len(of_cells) for field in dataclasses.fields(Cost)))
    return out


def _cost(cell: Cell, stage: dict[str, Any]) -> Cost:
    """Of one stage; the seconds alone where its artifact is no longer in the store."""
    name, manifest = stage["name"], cell.manifests.get(stage["name"])
    if manifest is None:
        return Cost(float(stage["seconds"]))
    execution = cell.config.get("execution", {})
    return stage_cost(
        name, float(stage["seconds"]), manifest["metrics"], manifest["hardware"], cell.curve(name), execution
    )
