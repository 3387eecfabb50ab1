"""What a run's scores are worth beside the runs before it: the gate's verdicts, and which scores moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from evaluation.gates.levels import spend
from pipeline.config.gate import CheckSettings, GateSettings
from pipeline.run.documents import GateVerdict, RunRecordDocument
from pipeline.run.gates.baseline import (
    Anchor,
    BaselineLost,
    Scores,
    earlier_runs,
    find_anchor,
    first_run,
    look_at,
    read_scores,
    run_scores,
    seed_of,
)
from pipeline.run.gates.gate import TRAINED, Further, asked_of_run, judge_all
from pipeline.run.gates.moved import moved_scores
from pipeline.store.store import Artifact, Store


@dataclasses.dataclass(frozen=True)
class Background:
    """A run's scores, and what they are held against.

    Attributes:
        measured: the checkpoints that the run was to measure, in the order of training.
        trouble: what became of scores that are not there any more, a line each.
        anchor: what scores are compared with; where a blessed run is lost, the first run in its place.
        lost: why nothing is left of what was chosen as the baseline. Checks against it cannot be judged then.
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
    lost: BaselineLost | None = None


def background(store: Store, record: RunRecordDocument, settings: GateSettings) -> Background:
    """What a run is held against, as its scores and the records are now. Raises `ConfigError` where the run's own
    config, what was blessed, or the scores file that is the baseline cannot be read."""
    seed = seed_of(store.home / "runs" / record.id)
    scores, trouble = run_scores(store, record)
    names = {entry.stage for entry in record.plan} | {entry.name for entry in record.stages}
    measured = tuple(checkpoint for checkpoint in TRAINED if f"score.{checkpoint}" in names)
    protocols = {one.protocol for one in scores.values() if one.protocol is not None}
    lost = None
    try:
        anchor = find_anchor(store, record.name, seed, settings.baseline, record.id, protocols)
    except BaselineLost as error:
        lost = error if error.run != record.id else None
        stand_in = lost is not None and settings.baseline is None
        anchor = first_run(store, record.name, seed, record.id, protocols) if stand_in else None
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
    return Background(scores, measured, tuple(trouble), anchor, look, earlier, seed, further, models, lost)


def gate_verdicts(known: Background, settings: GateSettings, checks: Sequence[CheckSettings]) -> list[GateVerdict]:
    """The verdicts on those of the config's checks whose checkpoint the run was to measure. A part of them, before a
    training, may spend a part of the level: the end judges all."""
    more = (known.further, known.models, settings.more_samples)
    anchor, lost = (known.anchor, "") if known.lost is None else (None, known.lost.message)
    asked = asked_of_run(checks, known.scores, anchor, known.measured, known.trouble, *more, lost=lost)
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
