"""The gate of a run that is planned: whether its checks can be compared with the baseline, before anything is
computed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison import differences
from evaluation.gates.levels import sample_looks
from pipeline.config.gate import BASELINE, CheckSettings, more_sampled
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.plan.planning import Planned
from pipeline.run.gates.baseline import Anchor, BaselineLost, chosen_anchor, read_scores, without_scores
from pipeline.run.gates.gate import TRAINED
from pipeline.run.record import read_run, whole_command
from pipeline.store.store import Store

STOP = "gate.stop=false"
ANYWAY = f"To run nevertheless: --set {STOP}."


def check_baseline(config: PipelineConfig, store: Store, plan: Sequence[Planned]) -> None:
    """Raise `ConfigError`, before anything is computed, where the baseline that was chosen is gone, lacks what a check
    compares with it, or was measured by another protocol, as far as settings say; what only the scores will say is
    said then.

    A blessed run matters only to checks that are held against it, and with `gate.stop` off to none: otherwise
    `gate_notes` says that it is lost. A run that `gate.baseline` names has to be there. Scores of the baseline that are
    gone or damaged, and that the run will make again, are no obstacle.
    """
    settings = config.gate
    held = _held(config) if settings.stop else []
    try:
        anchor = chosen_anchor(store, config.name, config.seed, settings.baseline)
    except BaselineLost as lost:
        if settings.baseline is None and not held:
            return
        if settings.baseline is None:
            lost.fix = f"{lost.fix}\n{ANYWAY}"
        raise
    if anchor is None or not settings.stop:
        return
    now = {benchmark.name: benchmark.identity_settings() for benchmark in config.benchmarks}
    then = _benchmarks(store.home / "runs" / anchor.name / "config.json")
    for where, check, checkpoint in held:
        if anchor.find(checkpoint, check.benchmark) is None:
            _check_lost(store, anchor, plan, where, checkpoint, check.benchmark)
        before, asked = then.get(check.benchmark, {}), now[check.benchmark].copy()
        asked.pop("samples")  # against a margin one side may have more
        apart = differences({name: before[name] for name in asked if name in before}, asked) if before else []
        if apart := [line for line in apart if line.partition(":")[0].partition(".")[0] in before]:
            what = f"the baseline {anchor.name} was measured by another protocol: {', '.join(apart)}"
            raise ConfigError(what, where=where, fix=f"{ANYWAY} Then bless the new run: vcore bless latest")
    if settings.baseline is not None and not held and not anchor.scores:
        raise without_scores(store.home, anchor, settings.baseline)


def gate_notes(config: PipelineConfig, store: Store) -> list[str]:
    """What a user should know of the gate before a run that `check_baseline` lets pass, a line each: after how many
    samples an undecided check is looked at, and that nothing is left of the blessed run."""
    notes = []
    most = config.gate.more_samples
    for benchmark in config.benchmarks:
        if most is not None and benchmark.name in more_sampled(config.gate, config.benchmarks):
            looks = " → ".join(map(str, sample_looks(benchmark.samples, most)))
            notes.append(f"{benchmark.name}: {looks} samples of each problem at most, while a check is undecided")
    lost, unless = None, ""
    try:
        anchor = chosen_anchor(store, config.name, config.seed, config.gate.baseline)
        if anchor is not None and not anchor.scores:
            lost = without_scores(store.home, anchor, config.gate.baseline)
            unless = " unless this run makes its scores again"
    except BaselineLost as error:
        lost = error
    if lost is not None:
        said = [lost.message]
        said += ["the first run with the same seed stands in for it"] if config.gate.baseline is None else []
        said += [f"checks against it stay UNDECIDED{unless}"] if _held(config) else []
        notes.append(f"{lost.where}: {'; '.join(said)}. {lost.fix}")
    return notes


def _held(config: PipelineConfig) -> list[tuple[str, CheckSettings, str]]:
    """The checks with a margin against the baseline: each with its place in the config and its checkpoint."""
    last = [name for name in TRAINED if name == "base" or getattr(config, name) is not None][-1]
    return [
        (f"gate.checks.{index}", check, check.checkpoint or last)
        for index, check in enumerate(config.gate.checks)
        if check.rule is not None and check.against == BASELINE
    ]


def _check_lost(
    store: Store, anchor: Anchor, plan: Sequence[Planned], where: str, checkpoint: str, benchmark: str
) -> None:
    """Raise `ConfigError` for scores that the baseline does not have, and say whether it ever had them; unless they are
    gone or damaged and the run makes just these again."""
    stage = f"score.{checkpoint}"
    record = read_run(store.home / "runs" / anchor.name)  # None: the baseline is a file
    key = next((one.key for one in record.stages if one.name == stage), None) if record is not None else None
    found = read_scores(store, key) if key is not None else {}
    if record is None or not isinstance(found, str):
        lacks = f"the baseline {anchor.name} has no {benchmark} of {checkpoint}"
        raise ConfigError(lacks, where=where, fix=f"Leave the check out, or choose another baseline. {ANYWAY}")
    if key in {planned.key for planned in plan if planned.stage.name == stage}:
        return
    again = f"{whole_command(record.command)} {shlex.join(['--until', stage, '--set', STOP])}"
    fix = f"With its config and code as they were, this makes them again: {again}\nOr bless another run. {ANYWAY}"
    raise ConfigError(f"the scores of {checkpoint} of the baseline {anchor.name} {found}", where=where, fix=fix)


def _benchmarks(config: Path) -> dict[str, dict[str, Any]]:
    """Benchmark -> its settings in the config.json of a run; empty for a baseline that is no run."""
    try:
        listed = json.loads(config.read_bytes())["benchmarks"]
        return {entry["name"]: entry for entry in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
