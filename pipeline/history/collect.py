"""Reads a pipeline's history from the records of its runs and the score artifacts that they name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.comparison import differences
from evaluation.statistics import paired_interval
from pipeline.core.errors import ConfigError, StoreError
from pipeline.history.documents import Change, History, Point, RecordedMeasurement, Series
from pipeline.run.documents import RunRecordDocument
from pipeline.run.gates.baseline import BaselineLost, baselines, load_blessed
from pipeline.run.record import list_runs, unreadable_runs
from pipeline.store.scores import Outcomes, load_outcomes
from pipeline.store.store import Store

METRICS = TypeAdapter(dict[str, RecordedMeasurement])
"""Reads a metrics.json: benchmark -> its entry."""


@dataclasses.dataclass
class _Scored:
    """What a score artifact holds, or what a report still says of it (without outcomes)."""

    measured: dict[str, RecordedMeasurement]
    outcomes: dict[str, Outcomes]
    trouble: str = ""


def collect(home: Path, name: str, benchmark: str | None = None) -> History:
    """The history of the pipeline `name` in `home`, of all benchmarks or of one.

    A score is read from its artifact, which is checked by its digests; where that is gone or damaged, from the report
    beside the run's record, and then nothing is compared problem by problem. Each run is compared with its reference:
    the blessed run of its seed where that was measured by the same protocol, else the first one of seed and protocol.

    Raises:
        ConfigError: there is no run of this name, none with a score, or none of this benchmark; or what was blessed
            cannot be read.
    """
    every = list_runs(home)
    records = [record for record in every if record.name == name]
    if not records:
        names = sorted({record.name for record in every})
        fix = f"There are runs of {', '.join(names[:10])}." if names else "List runs with: vcore runs"
        raise ConfigError(f"there is no run of {name!r} in {home / 'runs'}", fix=fix)
    reader = _Reader(home)
    history = _history(reader, name, records)
    reader.store.memo.save()
    if not history.series:
        raise ConfigError(f"no run of {name!r} has a score", fix="Run it: vcore run CONFIG")
    known = dict.fromkeys(series.benchmark for series in history.series)
    if benchmark is not None and benchmark not in known:
        raise ConfigError(f"no run of {name!r} measured {benchmark!r}", where="--benchmark", fix=", ".join(known))
    wanted = [series for series in history.series if benchmark in (None, series.benchmark)]
    passed_over = [f"{file}: cannot be read and is passed over" for file in unreadable_runs(home)]
    return history.model_copy(update={"series": wanted, "trouble": passed_over + history.trouble})


def collect_all(home: Path, records: Sequence[RunRecordDocument]) -> list[History]:
    """The histories of all pipelines that scored in two of these runs or more, by name."""
    reader = _Reader(home)
    of_name: dict[str, list[RunRecordDocument]] = {}
    for record in records:
        if any(stage.name.startswith("score.") for stage in record.stages):
            of_name.setdefault(record.name, []).append(record)
    histories = [_history(reader, name, of_name[name]) for name in sorted(of_name) if len(of_name[name]) > 1]
    reader.store.memo.save()
    return histories


def _history(reader: _Reader, name: str, records: Sequence[RunRecordDocument]) -> History:
    home = reader.home
    blessed = {one.seed: one.run for one in baselines(home, name).blessed}
    points: dict[tuple[str, str], list[tuple[Point, RecordedMeasurement, Outcomes | None]]] = {}
    trouble = []
    for run in blessed.values():
        try:
            load_blessed(home, run)
        except BaselineLost as lost:
            trouble.append(f"{lost.message}; the first run of its seed stands in for it")
    for record in records:
        seed = seed_of(home / "runs" / record.id)
        for stage in record.stages:
            program, _, checkpoint = stage.name.partition(".")
            if program != "score":
                continue
            scored = reader.scored(record, checkpoint, stage.key)
            if scored.trouble:
                trouble.append(f"run {record.id}, score.{checkpoint}: {scored.trouble}")
            for measured_on, m in scored.measured.items():
                point = Point(
                    run=record.id,
                    started=record.started,
                    status=record.status,
                    seed=seed,
                    key=stage.key,
                    blessed=seed is not None and blessed.get(seed) == record.id,
                    alerts=[
                        moved.against
                        for moved in record.moved or ()
                        if (moved.benchmark, moved.checkpoint) == (measured_on, checkpoint) and not moved.reason
                    ],
                    **{name: getattr(m, name) for name in ("metric", "value", "low", "high", "n", "k", "protocol")},
                )
                points.setdefault((measured_on, checkpoint), []).append((point, m, scored.outcomes.get(measured_on)))
    known = list(dict.fromkeys(measured_on for measured_on, _ in points))
    series = [
        Series(benchmark=measured_on, checkpoint=checkpoint, points=_related(of_series))
        for (measured_on, checkpoint), of_series in points.items()
    ]
    series.sort(key=lambda one: known.index(one.benchmark))  # stable: checkpoints stay in the order of training
    return History(name=name, home=str(home), runs=len(records), series=series, trouble=trouble)


class _Reader:
    """Reads each score artifact once: of many runs it is the same."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store.existing(home)
        self._read: dict[str, _Scored] = {}

    def scored(self, record: RunRecordDocument, checkpoint: str, key: str) -> _Scored:
        if key not in self._read:
            self._read[key] = self._artifact(key)
        found = self._read[key]
        if found.measured:
            return found
        found_there = reported(self.store.home / "runs" / record.id / "report.json", checkpoint)
        instead = "its numbers are those of the run's report" if found_there else "its numbers are lost"
        return _Scored(found_there, {}, f"{found.trouble}; {instead}")

    def _artifact(self, key: str) -> _Scored:
        found = self.store.find("score", key)
        if found.artifact is None:
            return _Scored({}, {}, found.damage or "its artifact is gone from the store")
        try:
            measured = METRICS.validate_json((found.artifact.folder / "metrics.json").read_bytes())
            return _Scored(measured, load_outcomes(found.artifact))
        except (OSError, ValidationError) as error:
            return _Scored({}, {}, f"metrics.json cannot be read ({type(error).__name__})")
        except StoreError as error:
            return _Scored({}, {}, error.message)


def reported(file: Path, checkpoint: str) -> dict[str, RecordedMeasurement]:
    """Benchmark -> the score of a checkpoint in a run's report.json; empty where there is none that can be read."""
    try:
        results = json.loads(file.read_bytes())["results"]
        of_checkpoint = {r["benchmark"]: r for r in results if r["checkpoint"] == checkpoint}
        return METRICS.validate_python(of_checkpoint)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def seed_of(run: Path) -> int | None:
    """The seed in the config of a run's folder; None where that cannot be read."""
    try:
        seed: Any = json.loads((run / "config.json").read_bytes())["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return seed if isinstance(seed, int) else None


def _related(points: list[tuple[Point, RecordedMeasurement, Outcomes | None]]) -> list[Point]:
    """The points, each with what its protocol changed and how it stands to its reference."""
    before: dict[int | None, RecordedMeasurement] = {}
    references: dict[tuple[int | None, str], tuple[str, Outcomes | None]] = {}
    for point, _, outcomes in points:
        if point.blessed:
            references[point.seed, point.protocol] = (point.run, outcomes)
    known: dict[tuple[str, str], Change] = {}
    related = []
    for point, measured, outcomes in points:
        update: dict[str, Any] = {}
        earlier = before.get(point.seed)
        if earlier is not None and earlier.protocol != measured.protocol:
            update["protocol_change"] = differences(earlier.protocol_details, measured.protocol_details)
        before[point.seed] = measured
        reference = references.setdefault((point.seed, point.protocol), (point.run, outcomes))
        if reference[0] != point.run:
            pair = (reference[0], point.key)
            change = known.get(pair) or _change(*reference, outcomes)
            if isinstance(change, Change):
                known[pair] = update["change"] = change
            else:
                update["why_no_change"] = change
        related.append(point.model_copy(update=update))
    return related


def _change(reference: str, old: Outcomes | None, new: Outcomes | None) -> Change | str:
    """`new` against `old`, problem by problem; or why they cannot be compared."""
    if old is None or new is None:
        return "problem by problem nothing is known of one of the two"
    before, after = old.shares(), new.shares()
    if old.problems != new.problems:
        first, second = dict(zip(old.problems, before, strict=True)), dict(zip(new.problems, after, strict=True))
        if first.keys() != second.keys():
            return f"not of the same problems: {len(first.keys() ^ second.keys())} are in one only"
        after = [second[problem] for problem in first]
    difference, low, high = paired_interval(before, after)
    pairs = list(zip(before, after, strict=True))
    improved, worsened = sum(now > was for was, now in pairs), sum(now < was for was, now in pairs)
    return Change(reference=reference, difference=difference, low=low, high=high, improved=improved, worsened=worsened)
