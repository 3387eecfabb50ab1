"""Reads a sweep's record and its runs into its report."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from evaluation.seeds import SeedEstimate, over_seeds
from pipeline.sweep.documents import CellOrigin, ScoreRow, ScoreTable, SweepRecord, SweepReport, TrainingEffect
from pipeline.sweep.report.cells import Group, MeasuredCell, Place, places, read_groups
from pipeline.sweep.report.changes import change, group_score, together
from pipeline.sweep.report.published import beside
from pipeline.sweep.settings import Labels
from stages.report.cost import total
from stages.report.documents import Cost, ReportedGit, ReportedHardware
from stages.report.render.text import versions


def collect(home: Path, folder: Path) -> tuple[SweepReport, list[Group]]:
    """Read a sweep's record (`folder/sweep.json`) and the runs of its cells below `home`.

    Returns:
        The report, and the groups of cells that it was made from, whose curves the pages draw.

    Raises:
        ValueError: no cell has a score, so that there is nothing to report.
        OSError, ValueError: a file of a run is missing or damaged.
    """
    record = SweepRecord.load(folder / "sweep.json")
    groups = read_groups(home, record)
    if not groups:
        raise ValueError(f"no cell of {record.id} has a score")
    baseline = record.baseline or {}
    published, not_measured = beside(record.published, groups)
    stages = list(_stages(groups))
    once = {cell.stages[stage].key: (cell, stage) for cell, stage in stages}
    spent = total(cell.cost(stage) for cell, stage in once.values())
    tables = [_table(place, groups, baseline) for place in places(groups)]
    effects = list(_effects(groups))
    changes = [row.difference for table in tables for row in table.rows] + [effect.difference for effect in effects]
    manifests = [manifest for group in groups for cell in group.cells for manifest in cell.manifests.values()]
    report = SweepReport(
        sweep=record,
        tables=tables,
        steps=effects,
        comparisons=sum(difference is not None and difference.tested for difference in changes),
        seconds={stage: _seconds(stage, groups) for stage in dict.fromkeys(stage for _, stage in stages)},
        cost={group.name: _costs(group) for group in groups},
        spent=spent,
        computed_s=spent.seconds,
        saved_s=sum(cell.stages[stage].seconds for cell, stage in stages) - spent.seconds,
        cells=[_origin(cell) for group in groups for cell in group.cells],
        versions={name: ", ".join(those) for name, those in versions(m.versions for m in manifests).items()},
        machines=list(dict.fromkeys(ReportedHardware.model_validate(m.hardware.model_dump()).line for m in manifests)),
        published=published,
        published_not_measured=not_measured,
        failed=[cell for cell in record.cells if cell.status != "done"],
    )
    return report, groups


def _stages(groups: list[Group]) -> Iterator[tuple[MeasuredCell, str]]:
    return ((cell, stage) for group in groups for cell in group.cells for stage in cell.stages)


def _partner(group: Group, groups: list[Group], baseline: Labels) -> Group | None:
    """The group that `group` is compared with: the baseline's labels where it names them, its own elsewhere."""
    labels = {**group.labels, **baseline}
    if not baseline or labels == group.labels:
        return None
    return next((other for other in groups if other.labels == labels), None)


def _table(place: Place, groups: list[Group], baseline: Labels) -> ScoreTable:
    def row(group: Group) -> ScoreRow:
        cells, partner = group.measured(place), _partner(group, groups, baseline)
        results = [cell.results[place] for cell in cells.values()]
        samples = sum(result.samples for result in results)
        difference = change(partner.measured(place), place, cells, place) if partner is not None else None
        return ScoreRow(
            group=group.name,
            values={seed: cell.results[place].value for seed, cell in cells.items()},
            mean=group_score(cells, place),
            difference=difference,
            verdict=difference.verdict if difference is not None else "",
            truncated=sum(result.truncated for result in results) / samples,
            no_answer=sum(result.no_answer for result in results) / samples,
        )

    results = [cell.results[place] for group in groups for cell in group.measured(place).values()]
    rows = [row(group) for group in groups if group.measured(place)]
    at_once = together([row.difference for row in rows])
    return ScoreTable(
        benchmark=place[0],
        checkpoint=place[1],
        metric=results[0].metric,
        n=results[0].n,
        rows=[r.model_copy(update={"together": change}) for r, change in zip(rows, at_once, strict=True)],
        protocols=sorted({result.protocol for result in results}),
    )


def _effects(groups: list[Group]) -> Iterator[TrainingEffect]:
    """From each checkpoint to the next that was measured on the same benchmark."""
    for (first, second), group in itertools.product(itertools.pairwise(places(groups)), groups):
        old, new = group.measured(first), group.measured(second)
        difference = change(old, first, new, second) if first[0] == second[0] else None
        if difference is not None:
            seeds = [seed for seed in new if seed in old]
            yield TrainingEffect(
                benchmark=first[0],
                before=first[1],
                after=second[1],
                group=group.name,
                mean_before=fmean(old[seed].results[first].value for seed in seeds),
                mean_after=fmean(new[seed].results[second].value for seed in seeds),
                difference=difference,
                verdict=difference.verdict,
            )


def _seconds(stage: str, groups: list[Group]) -> dict[str, SeedEstimate]:
    """Group -> seconds of the stage of that name."""
    taken = {g.name: [cell.stages[stage].seconds for cell in g.cells if stage in cell.stages] for g in groups}
    return {group: over_seeds(seconds) for group, seconds in taken.items() if seconds}


def _costs(group: Group) -> dict[str, Cost]:
    """Kind of stage -> its mean cost over the cells that came so far: one that failed before says nothing of it."""
    costs: dict[str, dict[str, list[Cost]]] = {}
    for cell, stage in _stages([group]):
        costs.setdefault(stage.partition(".")[0], {}).setdefault(cell.run, []).append(cell.cost(stage))
    return {kind: _mean([total(of_cell) for of_cell in cells.values()]) for kind, cells in costs.items()}


def _mean(costs: list[Cost]) -> Cost:
    summed = total(costs)
    return Cost(**{field: getattr(summed, field) / len(costs) for field in Cost.model_fields})


def _origin(cell: MeasuredCell) -> CellOrigin:
    commits = (ReportedGit(commit=m.git.commit, dirty=m.git.dirty).short for m in cell.manifests.values())
    outside = {name: manifest.preimage.to_json().get("outside", {}) for name, manifest in cell.manifests.items()}
    return CellOrigin(
        labels=cell.labels,
        seed=cell.seed,
        run=cell.run,
        commits=list(dict.fromkeys(filter(None, commits))),
        keys={name: stage.key for name, stage in cell.stages.items()},
        digests={name: manifest.digest for name, manifest in cell.manifests.items()},
        outside={name: read for name, read in outside.items() if read},
    )
