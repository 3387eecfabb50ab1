"""sweep.json, the record of a sweep, and the report.json that is made of it, typed."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from evaluation.seeds import FEWEST_SEEDS, SeedEstimate
from pipeline.store.documents import utc_now
from pipeline.sweep.settings import Labels, PublishedSettings
from pipeline.sweep.sweep import Sweep
from stages.harness.json_files import write_json
from stages.report.documents import Cost, Outside, ReportDocument, is_none


class CellRecord(ReportDocument):
    """One cell of a sweep, and how it ended."""

    model_config = ConfigDict(frozen=False)

    labels: Labels
    name: str  # of the pipeline that it runs
    status: str = "waiting"  # `waiting`, `running`, `done`, `failed` or `interrupted`
    run: str | None = None  # id of the run that it made; None where it came to none
    error: str | None = None
    command: str | None = Field(default=None, exclude_if=is_none)  # what it runs; None until it starts
    earlier_runs: list[str] | None = Field(default=None, exclude_if=is_none)  # runs of its name from before it
    ran: int | None = Field(default=None, exclude_if=is_none)  # stages that it computed, once it is done
    cached: int | None = Field(default=None, exclude_if=is_none)  # stages that it found in the store


class SweepRecord(ReportDocument):
    """`HOME/sweeps/ID/sweep.json`: a sweep, and how each of its cells ended."""

    model_config = ConfigDict(frozen=False)

    id: str
    name: str
    command: str  # the command that repeats the sweep
    axes: dict[str, list[str]]  # axis -> labels of its values
    baseline: Labels | None  # what the report compares the others with; None for nothing
    published: PublishedSettings | None = None  # what the report sets beside its scores
    started: str
    ended: str | None = None
    status: str = "running"  # `running`, `done`, `failed` (a cell did) or `interrupted`
    cells: list[CellRecord] = Field(default_factory=list)  # left out in report.json

    @classmethod
    def start(cls, home: Path, sweep: Sweep, command: str) -> SweepRecord:
        """Make a folder for a sweep that starts now, with its record."""
        started = datetime.datetime.now(datetime.UTC)
        for suffix in itertools.count(1):
            name = f"{started:%Y%m%d-%H%M%S}-{sweep.settings.name}{'' if suffix == 1 else f'-{suffix}'}"
            try:
                (home / "sweeps" / name).mkdir(parents=True)
                break
            except FileExistsError:
                continue
        record = cls(
            id=name,
            name=sweep.settings.name,
            command=command,
            axes=sweep.settings.axes,
            baseline=sweep.baseline,
            published=sweep.settings.published,
            started=started.isoformat(timespec="seconds"),
            cells=[CellRecord(labels=cell.labels, name=cell.name) for cell in sweep.cells],
        )
        record.save(home)
        return record

    def folder(self, home: Path) -> Path:
        """Where the record is, with the logs of the cells and the report."""
        return home / "sweeps" / self.id

    def save(self, home: Path) -> None:
        """Write sweep.json."""
        write_json(self.folder(home) / "sweep.json", self.model_dump())

    def end(self, home: Path, status: str) -> None:
        """Note how the sweep ended, and when."""
        self.status, self.ended = status, utc_now()
        self.save(home)


class GroupScore(ReportDocument):
    """A score, mean over `n` seeds, with its 95 % interval: over seeds or, where they show no spread, over problems.

    The latter says how well the run was measured, and nothing of what another seed would give.
    """

    mean: float
    low: float
    high: float
    n: int
    over: str  # `seeds` or `problems`


class ScoreChange(ReportDocument):
    """A difference of scores, mean over `n` pairs of cells of one seed, with its 95 % interval where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int
    over: str = ""  # `seeds`, `problems` (one pair, problem by problem) or no interval
    verdict: str  # `higher`, `lower`, `not distinguishable`, or why that cannot be told
    p_value: float | None = None  # over problems, as `improved` and `worsened`
    improved: int | None = None
    worsened: int | None = None
    test: str = ""  # the test that `p_value` is of

    @property
    def tested(self) -> bool:
        """Whether chance could have made it seem a difference: of so few seeds none is claimed."""
        return self.low is not None and (self.over == "problems" or self.n >= FEWEST_SEEDS)


class ScoreRow(ReportDocument):
    """The line of one group in a `ScoreTable`."""

    group: str
    values: dict[str, float]  # seed -> value
    mean: GroupScore
    difference: ScoreChange | None  # to the baseline, seed by seed; None of the baseline itself
    verdict: str  # of the difference; empty where there is none
    together: ScoreChange | None = Field(default=None, exclude_if=is_none)  # intervals of the table that hold at once
    truncated: float  # share of samples that ended at the token limit, mean over seeds
    no_answer: float  # share of samples in which no answer could be found, mean over seeds


class ScoreTable(ReportDocument):
    """One benchmark at one checkpoint."""

    benchmark: str
    checkpoint: str
    metric: str
    n: int  # problems
    rows: list[ScoreRow]
    protocols: list[str]  # those that any cell was measured by; several do not compare


class TrainingEffect(ReportDocument):
    """What one step of training changed on a benchmark, seed by seed; means over the seeds with both scores."""

    benchmark: str
    before: str
    after: str
    group: str
    mean_before: float
    mean_after: float
    difference: ScoreChange
    verdict: str  # of the difference


class CellOrigin(ReportDocument):
    """What the results of one cell were made from, with digests and revisions in full."""

    labels: Labels  # without that of the seed
    seed: str
    run: str
    commits: list[str]  # of the code; with a `+` where the work tree had uncommitted changes
    keys: dict[str, str]  # stage -> key of its artifact
    digests: dict[str, str]  # stage -> digest of its artifact, of those that are in the store
    outside: dict[str, Outside]  # by stage, of those that read something


class PublishedScore(ReportDocument):
    """A published score beside that of one group of ours.

    The interval says where one more run would lie with 95 %. It is wider than that of our mean: they published one run.
    """

    benchmark: str
    checkpoint: str
    label: str
    group: str  # empty for the base checkpoint, where that is the same in all groups
    published: float
    ours: float
    low: float
    high: float
    over: str  # what the interval is by: `seeds`, or `problems` where seeds show no spread
    n: int  # problems
    seeds: int
    inside: bool  # whether what was published lies in the interval


class SweepReport(ReportDocument):
    """Everything that the report of a sweep says; the pages also draw the curves of its runs."""

    sweep: SweepRecord
    tables: list[ScoreTable]
    steps: list[TrainingEffect]
    comparisons: int  # how many differences were tested, any of which chance may have made
    seconds: dict[str, dict[str, SeedEstimate]]  # stage -> group -> mean over the group's cells
    cost: dict[str, dict[str, Cost]]  # group -> stage program -> mean over the group's cells
    spent: Cost  # by all stages that the results rest on, each counted once
    computed_s: float  # the seconds of `spent`
    saved_s: float  # what computing every cell by itself would have taken beyond that
    cells: list[CellOrigin]
    versions: dict[str, str]  # library -> the versions that the stages ran with
    machines: list[str]  # those that the stages ran on
    published: list[PublishedScore]
    published_not_measured: list[str]  # published scores that no cell of ours stands beside
    failed: list[CellRecord]  # cells that did not end well

    @property
    def groups(self) -> list[str]:
        """Names of the groups, which are cells that differ in nothing but their seed; in the order of the sweep."""
        return list(self.cost)

    @property
    def baseline(self) -> str | None:
        """What the other groups are compared with, in words."""
        return ", ".join(f"{axis} {label}" for axis, label in (self.sweep.baseline or {}).items()) or None

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, without what sweep.json alone says of the sweep and its cells."""
        progress = {"__all__": {"command", "earlier_runs", "ran", "cached"}}
        return self.model_dump(exclude={"sweep": {"published", "cells"}, "failed": progress})
