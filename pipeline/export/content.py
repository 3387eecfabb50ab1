"""What of a run goes to a tracker, read from the run's record and the artifacts that it names."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.records import RecordError, read_rows
from pipeline.config.schema import PipelineConfig
from pipeline.core.digests import digest
from pipeline.export.flatten import identity_of, without_secrets
from pipeline.history.collect import METRICS, reported
from pipeline.history.documents import RecordedMeasurement
from pipeline.run.documents import RunRecordDocument, StageEntry
from pipeline.run.gates.gate import line, whole
from pipeline.run.record import load_run
from pipeline.store.documents import Manifest
from pipeline.store.store import Store
from stages.harness.json_files import read_json

CURVE = "record/metrics.jsonl"
REPORTS = ("report.md", "report.html")
MOST_REPORT_BYTES = 20 * 2**20
"""A page of a report that is larger stays where it is."""
Values = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The training curve of one stage."""

    stage: str
    time: datetime.datetime
    """When the stage ended. The times of single steps are not recorded."""
    rows: list[tuple[int, Values]]
    """(step, name -> value), in the order in which they were recorded; a step may have several rows."""


@dataclasses.dataclass
class Content:
    """One run, as a tracker gets it."""

    run: str
    """Its id, the name of its folder."""
    uid: str
    """16 hexadecimal digits that stand for this run alone: two machines may give one id."""
    pipeline: str
    status: str
    """`done`, `failed`, `interrupted` or `killed`."""
    started: datetime.datetime
    ended: datetime.datetime
    settings: dict[str, Any]
    """The settings that enter keys, nested as in the config."""
    facts: dict[str, str]
    """What identifies the run and its artifacts: commit, command, keys, inputs of each stage, the gate's words."""
    labels: list[str]
    """`config:demo`, `seed:0`, `model:make`: what Prefect shows as tags."""
    metrics: Values
    """Scores with their intervals, the gate, seconds and memory of stages."""
    curves: list[Curve]
    files: list[Path]
    trouble: list[str]
    """What could not be read and is left out, a line each."""

    @property
    def points(self) -> int:
        """How many numbers the curves have."""
        return sum(len(values) for curve in self.curves for _, values in curve.rows)


def read_content(home: Path, run: str, *, report: bool = True) -> Content:
    """Everything of a run that goes to a tracker. What is gone from the store or damaged is left out, and named in
    `trouble`.

    Args:
        run: the name of the run's folder.
        report: whether the pages of the report go along.

    Raises:
        ConfigError: the record cannot be read.
        StoreError: there is no store in `home`.
    """
    folder = home / "runs" / run
    record, reader = load_run(folder), _Reader(Store.existing(home))
    settings, labels = _settings(folder, reader.trouble)
    started = _time(record.started)
    ended = _time(record.ended) if record.ended else started
    facts = {
        "run": record.id,
        "pipeline": record.name,
        "status": record.status,
        "command": record.command,
        "host": record.host,
        **({"error": record.error} if record.error else {}),
    }
    metrics: Values = {}
    for stage in record.stages:
        facts |= _lineage(stage, reader)
        metrics[f"stage/{stage.name}/seconds"] = stage.seconds
        if stage.peak_memory_gib:
            metrics[f"stage/{stage.name}/peak_memory_gib"] = stage.peak_memory_gib
        if stage.name.startswith("score."):
            metrics |= _scores(stage, reader, folder, facts)
    facts |= _commit(record, reader) | _outside(record) | _gate(record, metrics)
    curves = [curve for stage in record.stages if (curve := _curve(stage, reader, ended)) is not None]
    files = [folder / name for name in REPORTS if report and (folder / name).is_file()]
    for file in [file for file in files if file.stat().st_size > MOST_REPORT_BYTES]:
        files.remove(file)
        reader.trouble.append(f"{file.name} is larger than {MOST_REPORT_BYTES // 2**20} MiB and stays here")
    reader.store.memo.save()
    return Content(
        run=record.id,
        uid=digest([record.id, record.host, record.pid, record.started])[:16],
        pipeline=record.name,
        status=record.status,
        started=started,
        ended=ended,
        settings=settings,
        facts={name: without_secrets(text) for name, text in facts.items()},
        labels=labels,
        metrics=metrics,
        curves=curves,
        files=files,
        trouble=list(dict.fromkeys(reader.trouble)),
    )


class _Reader:
    """Reads single files of artifacts, checked by their manifests; a large checkpoint beside them is not read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.trouble: list[str] = []
        self._manifests: dict[tuple[str, str], Manifest | None] = {}

    def manifest(self, stage: StageEntry) -> Manifest | None:
        """The manifest of a stage's artifact; None where it is gone or damaged, which is noted."""
        program = stage.name.partition(".")[0]
        if (program, stage.key) not in self._manifests:
            self._manifests[program, stage.key] = self._read(stage.name, program, stage.key)
        return self._manifests[program, stage.key]

    def file(self, stage: StageEntry, name: str) -> Path | None:
        """A file of a stage's artifact that is as its manifest says; None where the artifact has none, or a damaged
        one, which is noted."""
        manifest = self.manifest(stage)
        listed = {entry.path: entry for entry in manifest.files} if manifest is not None else {}
        if name not in listed:
            return None
        file = self.store.folder(stage.name.partition(".")[0], stage.key) / name
        try:
            if self.store.memo.sha256(file) == listed[name].sha256:
                return file
            self.trouble.append(f"{stage.name}: {name} is damaged and left out")
        except OSError as error:
            self.trouble.append(f"{stage.name}: {name} cannot be read ({error.strerror}) and is left out")
        return None

    def _read(self, name: str, program: str, key: str) -> Manifest | None:
        folder = self.store.folder(program, key)
        try:
            return Manifest.parse((folder / "manifest.json").read_bytes(), program, key)
        except FileNotFoundError:
            self.trouble.append(f"{name}: its artifact is gone from the store, and with it inputs and curve")
        except (OSError, ValueError) as error:
            self.trouble.append(f"{name}: its manifest.json cannot be read: {error}")
        return None


def _settings(folder: Path, trouble: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The identity settings of a run, and its labels."""
    file = folder / "config.json"
    try:
        config = PipelineConfig.model_validate_json(file.read_bytes())
        return without_secrets(config.identity_settings()), config.tags
    except ValidationError:  # it was written by a version with other settings
        try:
            return without_secrets(identity_of(read_json(file))), []
        except (OSError, ValueError, TypeError) as error:
            reason = f"{type(error).__name__}"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    trouble.append(f"config.json cannot be read ({reason}): the settings are left out")
    return {}, []


def _lineage(stage: StageEntry, reader: _Reader) -> dict[str, str]:
    """Key and state of a stage, and what its artifact was made from: `data=data/KEY model=sft/KEY`."""
    facts = {f"key.{stage.name}": stage.key, f"state.{stage.name}": stage.state}
    manifest = reader.manifest(stage)
    if stage.accepted:
        facts[f"accepted.{stage.name}"] = stage.accepted
    if manifest is None:
        return facts
    if manifest.inputs:
        parents = (f"{name}={made.stage}/{made.key}" for name, made in sorted(manifest.inputs.items()))
        facts[f"inputs.{stage.name}"] = " ".join(parents)
    if manifest.git.commit is not None:
        facts[f"commit.{stage.name}"] = manifest.git.commit + ("+changes" if manifest.git.dirty else "")
    if manifest.adopted is not None:
        facts[f"adopted.{stage.name}"] = manifest.adopted.source
    return facts


def _commit(record: RunRecordDocument, reader: _Reader) -> dict[str, str]:
    """The commit of the run's code: of the last stage that it computed, or else of the last one that it found."""
    for state in ("ran", "cached"):
        for stage in reversed(record.stages):
            manifest = reader.manifest(stage) if stage.state == state else None
            if manifest is not None and manifest.git.commit is not None:
                return {"commit": manifest.git.commit, "dirty": str(bool(manifest.git.dirty)).lower()}
    return {}


def _outside(record: RunRecordDocument) -> dict[str, str]:
    """What was read from outside the store: `OWNER/NAME@COMMIT`, or the digest of local files."""
    return {
        f"outside.{label}": f"{entry.hub}@{entry.commit}" if entry.hub else f"sha256:{entry.sha256}"
        for label, entry in record.outside.items()
    }


def _gate(record: RunRecordDocument, metrics: Values) -> dict[str, str]:
    """The gate in words, one fact a check; its verdict as a number goes into `metrics`."""
    if not record.gate:
        return {}
    metrics["gate/passed"] = float(whole(record.gate) == "PASS")
    facts: dict[str, str] = {"gate": whole(record.gate)}
    for number, one in enumerate(record.gate, start=1):
        facts[f"gate.{number}"] = f"{one.verdict} {one.benchmark}, {one.checkpoint} ({one.tier}): {line(one)}"
    return facts


def _scores(stage: StageEntry, reader: _Reader, run: Path, facts: dict[str, str]) -> Values:
    """The scores of a checkpoint: from its artifact, or where that is gone, from the run's report. Their protocols go
    into `facts`: scores of two protocols are not to be compared."""
    checkpoint = stage.name.partition(".")[2]
    file = reader.file(stage, "metrics.json")
    measured: dict[str, RecordedMeasurement] = {}
    if file is not None:
        try:
            measured = METRICS.validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            reader.trouble.append(f"{stage.name}: metrics.json cannot be read ({type(error).__name__})")
    measured = measured or reported(run / "report.json", checkpoint)
    if not measured:
        reader.trouble.append(f"{stage.name}: its scores are lost")
    values: Values = {}
    for benchmark, m in measured.items():
        values |= {f"{benchmark}/{checkpoint}/{name}": value for name, value in _numbers(m)}
        facts[f"protocol.{benchmark}.{checkpoint}"] = m.protocol
    return values


def _numbers(m: RecordedMeasurement) -> Iterator[tuple[str, float]]:
    """The numbers of one score. Shares are in 0..1; `low` and `high` bound the 95 % interval over problems."""
    yield from (("score", m.value), ("low", m.low), ("high", m.high), ("n", float(m.n)), ("samples", float(m.k)))
    more = m.model_extra or {}
    for name in ("truncated", "no_answer"):
        if isinstance(more.get(name), int):
            yield name, more[name] / (m.n * m.k)
    for tries, rate in (more.get("pass_at") or {}).items():
        yield f"pass_at_{tries}", rate["value"]
    if "majority" in more:
        yield "majority", more["majority"]["value"]


def _curve(stage: StageEntry, reader: _Reader, ended: datetime.datetime) -> Curve | None:
    """The training curve of a stage; None where it recorded none."""
    file, manifest = reader.file(stage, CURVE), reader.manifest(stage)
    if file is None or manifest is None:
        return None
    rows: list[tuple[int, Values]] = []
    try:
        for number, row in read_rows(file):
            step = row.pop("step", None)
            if not isinstance(step, int):
                raise RecordError(f"line {number} has no step")
            values = {name: float(v) for name, v in row.items() if isinstance(v, int | float) and type(v) is not bool}
            if values:
                rows.append((step, values))
    except (OSError, RecordError) as error:
        reader.trouble.append(f"{stage.name}: {CURVE} cannot be read: {error}")
    return Curve(stage.name, _time(manifest.ended) if manifest.ended else ended, rows) if rows else None


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
