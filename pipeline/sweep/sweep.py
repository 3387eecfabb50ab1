"""A sweep: one pipeline over a matrix of settings. Cells that share stages compute them once: their keys are the same.

settings.py describes the file. Here it is expanded into cells, and these are planned.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.benchmarks import names
from evaluation.harness.nearest import nearest
from pipeline.checks.preflight import preflight
from pipeline.config.schema import load_config
from pipeline.config.yaml_file import Document, read
from pipeline.core.digests import digest
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Decider
from pipeline.plan.keys import KeyMaker
from pipeline.plan.planning import Planned, plan_stages
from pipeline.store.store import Store
from pipeline.sweep.settings import Labels, SweepSettings, label_of

LONGEST_NAME = 100
SHARED = {"home": "all cells share one store", "name": "every cell has a name of its own, made of its labels"}
"""Settings that no axis may change, and why."""


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
        """The labels of what the report compares the others with; None where nothing is compared."""
        given = self.settings.baseline
        return {axis: label_of(label) for axis, label in given.items()} if given is not None else None


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
    _check_axes(settings, document)
    _no_axis_overridden(settings, overrides)
    variants = [_variants(axis, values) for axis, values in settings.matrix.items()]
    cells = tuple(_cell(settings, combination, overrides) for combination in itertools.product(*variants))
    if len({cell.name for cell in cells}) < len(cells):
        fix = "Use named variants with short names."
        raise ConfigError("two cells would have the same name", where=str(path), fix=fix)
    return Sweep(settings, path, path.parent / settings.config, cells)


def _cell(settings: SweepSettings, combination: Sequence[tuple[str, dict[str, Any]]], overrides: Sequence[str]) -> Cell:
    labels = {axis: label for axis, (label, _) in zip(settings.matrix, combination, strict=True)}
    changes = {key: value for _, change in combination for key, value in change.items()}
    words = [settings.name, *(f"{axis.split('.')[-1]}-{label}" for axis, label in labels.items())]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ".".join(words))[:LONGEST_NAME]
    # JSON is YAML: a value of any shape goes through `--set` as it is.
    sets = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    return Cell(labels, name, (*sets, *overrides, f"name={name}"))


def _check_axes(settings: SweepSettings, document: Document) -> None:
    """No setting is changed by two axes, which would leave one of them without effect under labels that say otherwise;
    and none that all cells share is changed by any."""
    paths = {axis: _changed(axis, values) for axis, values in settings.matrix.items()}
    for axis, changed in paths.items():
        where = document.place(("matrix", axis))
        for key, why in SHARED.items():
            if key in changed:
                raise ConfigError(f"{axis} changes {key}, and {why}", where=where, fix="Leave it out of the matrix.")
    for (one, its), (other, others) in itertools.combinations(paths.items(), 2):
        for a, b in itertools.product(its, others):
            if _overlap(a, b):
                both = f"both change {a}" if a == b else f"overlap: {a} and {b}"
                raise ConfigError(
                    f"the axes {one} and {other} {both}",
                    where=document.place(("matrix", other)),
                    fix="Make one axis of named variants of them, each with all that it changes.",
                )


def _changed(axis: str, values: Any) -> tuple[str, ...]:
    """The settings that an axis changes, each once."""
    return tuple(dict.fromkeys(key for _, change in _variants(axis, values) for key in change))


def _overlap(a: str, b: str) -> bool:
    """Whether two paths of settings are the same, or one is a part of what the other sets."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def _no_axis_overridden(settings: SweepSettings, overrides: Sequence[str]) -> None:
    """An override comes last, so that of an axis would make every cell the same under labels that say otherwise."""
    for override, (axis, values) in itertools.product(overrides, settings.matrix.items()):
        key = override.partition("=")[0].strip()
        for changed in _changed(axis, values):
            if _overlap(key, changed):
                raise ConfigError(
                    f"{key} is what the axis {axis} changes from cell to cell",
                    where=f"--set {override}",
                    fix=f"Edit the matrix of {axis}.",
                )


def _variants(axis: str, values: Any) -> list[tuple[str, dict[str, Any]]]:
    """Label -> settings that it changes, of each value of an axis."""
    if isinstance(values, dict):
        return [(label_of(name), change) for name, change in values.items()]
    return [(label_of(value), {axis: value}) for value in values]


@dataclasses.dataclass(frozen=True)
class PlannedCell:
    """A cell's plan."""

    cell: Cell
    stages: list[Planned]
    computations: dict[str, str]
    """Stage -> what names its computation, also where its key is not known yet: equal names, one computation."""


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do, all cells together."""

    cells: list[PlannedCell]
    store: Store
    stages: int
    """Stages of all cells."""
    distinct: int
    """Different computations among them; the others are shared."""
    cached: int
    """How many of the different ones are in the store."""
    seconds: float
    """How long the rest takes one after the other, by the time that a stage of that name took last here."""
    untimed: int
    """Computations of which no time is known."""


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """Plan every cell. Raises `ConfigError` naming the cell whose config is wrong."""
    planned: list[PlannedCell] = []
    benchmarks = set(names())
    store: Store | None = None
    for cell in sweep.cells:
        try:
            config = load_config(sweep.config, list(cell.overrides))
            benchmarks |= {benchmark.name for benchmark in config.benchmarks}
            store = store or Store(config.home_folder)
            decider = Decider(config, store)
            stages = plan_stages(decider)
            preflight(config, stages)
        except ConfigError as error:
            labels = " ".join(f"{axis}={label}" for axis, label in cell.labels.items())
            where = f"cell {labels}: {error.where}".rstrip(": ")
            raise ConfigError(error.message, where=where, fix=error.fix) from error
        planned.append(PlannedCell(cell, stages, computations(stages, decider.keys)))
    for name in sweep.settings.published.benchmarks if sweep.settings.published is not None else ():
        if name not in benchmarks:
            message = f"published: there is no benchmark {name!r}{nearest(name, benchmarks)}"
            raise ConfigError(message, where=str(sweep.file), fix="Correct the name, or leave the score out.")
    assert store is not None  # a matrix has at least one cell
    distinct = {cell.computations[stage.stage.name]: stage for cell in planned for stage in cell.stages}
    missing = [stage for stage in distinct.values() if stage.state != "HIT"]
    typical = store.typical_seconds()
    times = [stage.last_seconds or typical.get(stage.stage.name) for stage in missing]
    return SweepPlan(
        planned,
        store,
        stages=sum(len(cell.stages) for cell in planned),
        distinct=len(distinct),
        cached=len(distinct) - len(missing),
        seconds=sum(seconds for seconds in times if seconds is not None),
        untimed=sum(seconds is None for seconds in times),
    )


def computations(stages: list[Planned], keys: KeyMaker) -> dict[str, str]:
    """Stage -> a digest of what it computes, with its inputs named by what computes them, not by their content."""
    names: dict[str, str] = {}
    for stage in (planned.stage for planned in stages):
        inputs = {name: [names[source.stage], list(source.select)] for name, source in stage.inputs.items()}
        names[stage.name] = digest([keys.own(stage).to_json(), inputs])
    return names
