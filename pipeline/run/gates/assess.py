"""What a run's scores are worth beside the runs before it: the gate's verdicts, and which scores moved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison import differences
from evaluation.gates.levels import spend
from pipeline.config.gate import BASELINE, CheckSettings, GateSettings
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.run.documents import GateVerdict, RunRecordDocument
from pipeline.run.gates.baseline import (
    Anchor,
    Scores,
    blessed_run,
    earlier_runs,
    find_anchor,
    look_at,
    read_scores,
    run_scores,
    seed_of,
)
from pipeline.run.gates.gate import TRAINED, Further, asked_of_run, judge_all
from pipeline.run.gates.moved import moved_scores
from pipeline.store.store import Artifact, Store

ANYWAY = "To run nevertheless: --set gate.stop=false."


@dataclasses.dataclass(frozen=True)
class Background:
    """A run's scores, and what they are held against.

    Attributes:
        measured: the checkpoints that the run was to measure, in the order of training.
        trouble: what became of scores that are not there any more, a line each.
        further: scores of more samples than the run's own, as far as an undecided check has led to any.
        models: `RUN:sft` -> the model, of those checkpoints of the anchor that can be sampled more.
    """

    scores: Scores
    measured: tuple[str, ...]
    trouble: tuple[str, ...]
    anchor: Anchor | None
    look: int | None
    earlier: list[tuple[Path, RunRecordDocument]]
    seed: int
    further: Further
    models: dict[str, Artifact]


def background(store: Store, record: RunRecordDocument, settings: GateSettings) -> Background:
    """What a run is held against, as its scores and the records are now. Raises `ConfigError` where the baseline that
    was chosen is not there."""
    seed = seed_of(store.home / "runs" / record.id)
    scores, trouble = run_scores(store, record)
    names = {entry.stage for entry in record.plan} | {entry.name for entry in record.stages}
    measured = tuple(checkpoint for checkpoint in TRAINED if f"score.{checkpoint}" in names)
    protocols = {one.protocol for one in scores.values() if one.protocol is not None}
    anchor = find_anchor(store, record.name, seed, settings.baseline, record.id, protocols)
    if anchor is not None and anchor.name == record.id:
        anchor = None  # it is the baseline itself
    earlier = list(earlier_runs(store.home, record.name, record.id)) if anchor is not None else []
    look = look_at(anchor.name, (before for _, before in earlier), record) if anchor is not None else None
    further: Further = {}
    for one in record.further:  # of those that are gone new ones will be made
        found = read_scores(store, one.scores) if one.scores is not None else {}
        if not isinstance(found, str) and one.benchmark in found:
            further[one.checkpoint, one.benchmark, one.samples] = found[one.benchmark]
    models = {}
    if anchor is not None and settings.more_samples is not None:
        baseline = RunRecordDocument.read(store.home / "runs" / anchor.name / "run.json")  # None: it is a file
        for stage in baseline.stages if baseline is not None else ():
            if stage.name in measured and (artifact := store.find(stage.name, stage.key).artifact) is not None:
                models[f"{anchor.name}:{stage.name}"] = artifact
    return Background(scores, measured, tuple(trouble), anchor, look, earlier, seed, further, models)


def gate_verdicts(known: Background, settings: GateSettings, checks: Sequence[CheckSettings]) -> list[GateVerdict]:
    """The verdicts on those of the config's checks whose checkpoint the run was to measure. A part of them, before a
    training, may spend a part of the level: the end judges all."""
    more = (known.further, known.models, settings.more_samples)
    asked = asked_of_run(checks, known.scores, known.anchor, known.measured, known.trouble, *more)
    share = len(checks) / len(settings.checks) if settings.checks else 1.0
    return judge_all(asked, settings.level, share * spend(settings.level, known.look or 1))


def assess(store: Store, record: RunRecordDocument, settings: GateSettings) -> Background:
    """Note in the record of a run that has ended the anchor and the scores that moved. Returns what the run's gate is
    judged by."""
    known = background(store, record, settings)
    record.anchor = known.anchor.name if known.anchor is not None else None
    record.anchor_blessed = known.anchor is not None and known.anchor.blessed
    record.look = known.look
    record.moved = moved_scores(store, known.scores, known.anchor, known.earlier, record, known.seed, settings)
    return known


def check_baseline(config: PipelineConfig, store: Store) -> None:
    """Raise `ConfigError`, before anything is computed, where the baseline that was chosen is gone, lacks what a check
    compares with it, or was measured by another protocol, as far as settings say; what only the scores will say is
    said then. With `gate.stop` off only a baseline that is gone is refused."""
    settings = config.gate
    chosen = settings.baseline or blessed_run(store.home, config.name, config.seed)
    if chosen is None:
        return
    anchor = find_anchor(store, config.name, config.seed, settings.baseline, None, set())
    if anchor is None or not settings.stop:
        return
    now = {benchmark.name: benchmark.identity_settings() for benchmark in config.benchmarks}
    then = _benchmarks(store.home / "runs" / anchor.name / "config.json")
    last = [name for name in TRAINED if name == "base" or getattr(config, name) is not None][-1]
    for index, check in enumerate(settings.checks):
        if check.rule is None or check.against != BASELINE:
            continue
        where, checkpoint = f"gate.checks.{index}", check.checkpoint or last
        if anchor.find(checkpoint, check.benchmark) is None:
            lacks = f"the baseline {anchor.name} has no {check.benchmark} of {checkpoint}"
            raise ConfigError(lacks, where=where, fix=f"Leave the check out, or choose another baseline. {ANYWAY}")
        before, asked = then.get(check.benchmark, {}), now[check.benchmark].copy()
        asked.pop("samples")  # against a margin one side may have more
        apart = differences({name: before[name] for name in asked if name in before}, asked) if before else []
        if apart := [line for line in apart if line.partition(":")[0].partition(".")[0] in before]:
            what = f"the baseline {anchor.name} was measured by another protocol: {', '.join(apart)}"
            raise ConfigError(what, where=where, fix=f"{ANYWAY} Then bless the new run: vcore bless latest")


def _benchmarks(config: Path) -> dict[str, dict[str, Any]]:
    """Benchmark -> its settings in the config.json of a run; empty for a baseline that is no run."""
    try:
        listed = json.loads(config.read_bytes())["benchmarks"]
        return {entry["name"]: entry for entry in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
