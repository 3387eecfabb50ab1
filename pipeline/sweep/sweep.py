"""A sweep: one pipeline over a matrix of settings. Cells that share stages compute them once, because their keys are the same.

config: demo.yaml                 # the pipeline that every cell starts from
name: methods
matrix:
  method:                         # named variants, each with the settings it changes
    uniform: {sft.method: {name: uniform}}
    vcore: {sft.method: {name: vcore}}
  sft.learning_rate: [1e-3, 2e-3] # or a setting and its values
  seed: [0, 1, 2]                 # `seed` is averaged over in the report
baseline: {method: uniform}       # what the others are compared with, seed by seed
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from pipeline.checks.preflight import preflight
from pipeline.config.schema import load_config
from pipeline.config.yaml_file import read
from pipeline.core.digests import digest
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Decider
from pipeline.plan.keys import KeyMaker
from pipeline.plan.planning import Planned, plan_stages
from pipeline.store.documents import utc_now
from pipeline.store.store import Store
from stages.harness.json_files import write_json
from stages.harness.settings import StageSettings, execution

REPLICATES = "seed"
"""The axis that the report averages over."""
Labels = dict[str, str]


class PublishedSettings(StageSettings):
    """Scores that somebody published, in per cent, to be set beside ours: benchmark -> value, or -> label of `axis` -> value.

    `aime24+aime25` stands for the problems of both together.
    """

    source: str = execution(min_length=1)
    axis: str = execution()
    base: dict[str, float] = execution({})
    """Of the model before any training."""
    sft: dict[str, dict[str, float]] = execution({})
    grpo: dict[str, dict[str, float]] = execution({})


class SweepSettings(StageSettings):
    """The sweep file."""

    config: str = execution()
    """The pipeline's file, relative to this one."""
    name: str = execution(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)
    matrix: dict[str, Any] = execution(min_length=1)
    """Axis -> a list of values of the setting it is named after, or a mapping of named variants to the settings each one changes."""
    baseline: dict[str, Any] | None = execution(None)
    """Axis -> label of what the report compares the others with; axes that are not named keep their own."""
    published: PublishedSettings | None = execution(None)
    """What the report sets beside our scores."""

    @field_validator("matrix")
    @classmethod
    def _axes(cls, matrix: dict[str, Any]) -> dict[str, Any]:
        for axis, values in matrix.items():
            if isinstance(values, dict):
                if not values or not all(isinstance(settings, dict) for settings in values.values()):
                    raise ValueError(
                        f"{axis}: each variant is a mapping of settings: uniform: {{sft.method: {{name: uniform}}}}"
                    )
            elif not isinstance(values, list) or not values:
                raise ValueError(f"{axis}: takes a list of values, or named variants")
            labels = [_label(value) for value in values]
            if len(set(labels)) < len(labels):
                raise ValueError(f"{axis}: a value stands in it twice")
        return matrix

    @model_validator(mode="after")
    def _known_published(self) -> SweepSettings:
        given = self.published
        if given is None:
            return self
        if given.axis not in self.matrix:
            raise ValueError(f"published.axis: {given.axis!r} is no axis; there is {', '.join(self.matrix)}")
        known = [_label(value) for value in self.matrix[given.axis]]
        for checkpoint, table in (("sft", given.sft), ("grpo", given.grpo)):
            for benchmark, values in table.items():
                for label in values:
                    if label not in known:
                        raise ValueError(f"published.{checkpoint}.{benchmark}: {label!r} is none of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _known_baseline(self) -> SweepSettings:
        for axis, label in (self.baseline or {}).items():
            if axis not in self.matrix or axis == REPLICATES:
                raise ValueError(
                    f"baseline.{axis}: is no axis that could have a baseline; there is {', '.join(self.matrix)}"
                )
            if _label(label) not in [_label(value) for value in self.matrix[axis]]:
                raise ValueError(
                    f"baseline.{axis}: {label!r} is none of {', '.join(_label(v) for v in self.matrix[axis])}"
                )
        return self


@dataclasses.dataclass(frozen=True)
class Cell:
    """One pipeline of a sweep: its place in the matrix, and the overrides that make it of the config."""

    labels: Labels
    name: str
    overrides: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep file, read and expanded."""

    settings: SweepSettings
    file: Path
    config: Path
    cells: tuple[Cell, ...]

    @property
    def baseline(self) -> Labels | None:
        given = self.settings.baseline
        return {axis: _label(label) for axis, label in given.items()} if given is not None else None


def load_sweep(path: Path, overrides: list[str]) -> Sweep:
    """Read a sweep file and expand it; `overrides` (`--set`) apply to every cell. Raises `ConfigError`."""
    document = read(path)
    if "matrix" not in document.values and "config" not in document.values:
        raise ConfigError("this is no sweep: it has no matrix", where=str(path), fix=f"vcore run {path}")
    try:
        settings = SweepSettings.model_validate(document.values)
    except ValidationError as error:
        places = [
            (document.place(tuple(e["loc"])), ".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, "))
            for e in error.errors()
        ]
        raise ConfigError("\n".join(": ".join(filter(None, place)) for place in places)) from None
    _no_axis_overridden(settings, overrides)
    cells = []
    for combination in itertools.product(*(_variants(axis, values) for axis, values in settings.matrix.items())):
        labels = {axis: label for axis, (label, _) in zip(settings.matrix, combination, strict=True)}
        changes = {key: value for _, change in combination for key, value in change.items()}
        name = re.sub(
            r"[^A-Za-z0-9._-]+",
            "-",
            ".".join([settings.name, *(f"{axis.split('.')[-1]}-{label}" for axis, label in labels.items())]),
        )
        # JSON is YAML: a value of any shape goes through `--set` as it is.
        sets = (
            *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()),
            *overrides,
            f"name={name[:100]}",
        )
        cells.append(Cell(labels, name[:100], sets))
    if len({cell.name for cell in cells}) < len(cells):
        raise ConfigError(
            "two cells would have the same name", where=str(path), fix="Use named variants with short names."
        )
    return Sweep(settings, path, (path.parent / settings.config), tuple(cells))


def _no_axis_overridden(settings: SweepSettings, overrides: Sequence[str]) -> None:
    """An override comes last, so that of an axis would make every cell the same under labels that say otherwise."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        for axis, values in settings.matrix.items():
            for changed in {changed for _, change in _variants(axis, values) for changed in change}:
                if f"{key}.".startswith(f"{changed}.") or f"{changed}.".startswith(f"{key}."):
                    raise ConfigError(
                        f"{key} is what the axis {axis} changes from cell to cell",
                        where=f"--set {override}",
                        fix=f"Edit the matrix of {axis}.",
                    )


def _variants(axis: str, values: Any) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(values, dict):
        return [(_label(name), change) for name, change in values.items()]
    return [(_label(value), {axis: value}) for value in values]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class PlannedCell:
    """A cell's plan. `computations` names what each stage computes, also where its key is not known yet: equal names, one computation."""

    cell: Cell
    stages: list[Planned]
    computations: dict[str, str]


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do, all cells together."""

    cells: list[PlannedCell]
    store: Store
    stages: int
    """Stages of all cells."""
    distinct: int
    """Different computations among them: the others are shared."""
    cached: int
    """Of the different ones, how many are in the store."""
    seconds: float
    """How long the rest takes one after the other, by the time a stage of that name took last here."""
    untimed: int
    """Computations that no time is known of."""


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """Plan every cell. Raises `ConfigError` naming the cell whose config is wrong."""
    planned: list[PlannedCell] = []
    store: Store | None = None
    for cell in sweep.cells:
        try:
            config = load_config(sweep.config, list(cell.overrides))
            store = store or Store(config.home_folder)
            decider = Decider(config, store)
            stages = plan_stages(decider)
            preflight(config, stages)
        except ConfigError as error:
            raise ConfigError(
                error.message, where=f"cell {_words(cell.labels)}: {error.where}".rstrip(": "), fix=error.fix
            ) from error
        planned.append(PlannedCell(cell, stages, computations(stages, decider.keys)))
    assert store is not None  # a matrix has at least one cell
    names: dict[str, Planned] = {}
    for cell_plan in planned:
        names |= {cell_plan.computations[stage.stage.name]: stage for stage in cell_plan.stages}
    missing = [stage for stage in names.values() if stage.state != "HIT"]
    typical = store.typical_seconds()
    times = [stage.last_seconds or typical.get(stage.stage.name) for stage in missing]
    return SweepPlan(
        planned,
        store,
        stages=sum(len(cell_plan.stages) for cell_plan in planned),
        distinct=len(names),
        cached=len(names) - len(missing),
        seconds=sum(seconds for seconds in times if seconds is not None),
        untimed=sum(seconds is None for seconds in times),
    )


def computations(stages: list[Planned], keys: KeyMaker) -> dict[str, str]:
    """Stage -> a digest of what it computes, with its inputs named by what computes them instead of by their content."""
    names: dict[str, str] = {}
    for planned in stages:
        stage = planned.stage
        names[stage.name] = digest(
            [
                stage.program,
                stage.settings.identity_settings(),
                keys.seed,
                {label: entry.to_json() for label, entry in keys.outside[stage.name].items()},
                {name: [names[source.stage], list(source.select)] for name, source in stage.inputs.items()},
            ]
        )
    return names


def _words(labels: Labels) -> str:
    return " ".join(f"{axis}={label}" for axis, label in labels.items())


@dataclasses.dataclass
class SweepRecord:
    """`HOME/sweeps/ID/sweep.json`: the sweep and how each cell ended, with the run that made it."""

    folder: Path
    data: dict[str, Any]

    @classmethod
    def start(cls, home: Path, sweep: Sweep, command: str) -> SweepRecord:
        started = datetime.datetime.now(datetime.UTC)
        for suffix in itertools.count(1):
            folder = (
                home / "sweeps" / f"{started:%Y%m%d-%H%M%S}-{sweep.settings.name}{'' if suffix == 1 else f'-{suffix}'}"
            )
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        record = cls(
            folder,
            {
                "id": folder.name,
                "name": sweep.settings.name,
                "command": command,
                "axes": {axis: [_label(value) for value in values] for axis, values in sweep.settings.matrix.items()},
                "baseline": sweep.baseline,
                "published": sweep.settings.published.model_dump() if sweep.settings.published is not None else None,
                "started": started.isoformat(timespec="seconds"),
                "ended": None,
                "status": "running",
                "cells": [
                    {"labels": cell.labels, "name": cell.name, "status": "waiting", "run": None, "error": None}
                    for cell in sweep.cells
                ],
            },
        )
        record.save()
        return record

    @property
    def home(self) -> Path:
        """The folder that the cells' runs are in as well."""
        return self.folder.parent.parent

    def save(self) -> None:
        write_json(self.folder / "sweep.json", self.data)

    def end(self, status: str) -> None:
        """`status`: done, failed (a cell did) or interrupted."""
        self.data.update(status=status, ended=utc_now())
        self.save()
