"""What a run's scores are held against: the anchor, which somebody blessed or which was the first run, and the window
of the runs before this one."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from evaluation.comparison import read_measured
from evaluation.gates.paired import Sampled, of_scores
from pipeline.core.errors import ConfigError, StoreError
from pipeline.run.documents import RunRecordDocument
from pipeline.run.record import find_run, load_run, read_run
from pipeline.store.documents import utc_now
from pipeline.store.scores import load_outcomes
from pipeline.store.store import Store
from stages.harness.documents import Document

Scores = dict[tuple[str, str], Sampled]
"""(checkpoint, benchmark) -> scores, in the order of training. Those of a file have the checkpoint `*`, which stands
for each."""
ANY = "*"
_ANOTHER_NAMED = "Name another run (vcore runs) or a scores file."
_ANOTHER_BLESSED = "Bless another run (vcore runs lists them): vcore bless RUN"


class Blessing(Document):
    """One run that was made the baseline of its pipeline."""

    run: str
    seed: int
    by: str
    at: str  # ISO 8601, UTC


class Blessings(Document):
    """`HOME/baselines/PIPELINE.json`: every blessing, in the order they were given; the last of a seed counts."""

    blessed: list[Blessing]


class BaselineLost(ConfigError):
    """Nothing is left to compare with of the run that was chosen as the baseline.

    Attributes:
        run: its id, or what `gate.baseline` says where there is no such run.
    """

    def __init__(self, run: str, message: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(message, where=where, fix=fix)
        self.run = run


class _Entry(Document):
    """One benchmark in the metrics.json of a score artifact, as far as a gate looks at it."""

    n: int
    k: int
    protocol: str
    protocol_details: dict[str, object] = Field(default={})
    truncated: int
    no_answer: int


_METRICS = TypeAdapter(dict[str, _Entry])


@dataclasses.dataclass(frozen=True)
class Anchor:
    """What scores are held against.

    Attributes:
        name: the run's id, or the path of a file or folder.
        blessed: whether somebody chose it.
        scores: those that are still there.
        trouble: what is not, a line each.
    """

    name: str
    blessed: bool
    scores: Scores
    trouble: tuple[str, ...] = ()

    def find(self, checkpoint: str, benchmark: str) -> Sampled | None:
        """Its scores of a checkpoint on a benchmark."""
        return self.scores.get((checkpoint, benchmark)) or self.scores.get((ANY, benchmark))


def baselines(home: Path, pipeline: str) -> Blessings:
    """Whatever was blessed for a pipeline. Raises `ConfigError` where the file is damaged."""
    file = home / "baselines" / f"{pipeline}.json"
    if not file.exists():
        return Blessings(blessed=[])
    found = Blessings.read(file)
    if found is None:
        raise ConfigError("what was blessed cannot be read", where=str(file), fix="Restore the file, or remove it.")
    return found


def bless(home: Path, run: str, by: str | None = None, *, even_failed: bool = False) -> Blessing:
    """Make a run, named as in `find_run`, the baseline of its pipeline and seed.

    Args:
        by: who blesses it; None is the user.
        even_failed: also a run that failed, was stopped (by its gate, too) or is not done.

    Raises:
        ConfigError: a run that is not done, one without scores in the store, or an empty name.
    """
    if by is not None and not by.strip():
        raise ConfigError("a blessing has a name", where="--by", fix="Name somebody, or leave --by out: the user.")
    folder = find_run(home, run)
    record = load_run(folder)
    if record.status != "done" and not even_failed:
        how = {"running": "is not done yet", "interrupted": "was interrupted", "killed": "was killed"}
        ended = how.get(record.status, record.status) + (f": {record.error}" if record.error else "")
        fix = "Name another run (vcore runs), or make this one the baseline all the same: --even-failed"
        raise ConfigError(f"run {record.id} {ended}", fix=fix)
    scores, trouble = run_scores(Store.existing(home), record)
    if not scores or trouble:
        why = "; ".join(trouble) or "it has no score"
        raise ConfigError(f"run {record.id} cannot be a baseline: {why}", fix="Name another run: vcore runs")
    blessing = Blessing(run=record.id, seed=seed_of(folder), by=by or getpass.getuser(), at=utc_now())
    before = baselines(home, record.name)
    (home / "baselines").mkdir(exist_ok=True)
    after = Blessings(blessed=[*before.blessed, blessing])
    after.write(home / "baselines" / f"{record.name}.json")
    return blessing


def blessed_run(home: Path, pipeline: str, seed: int) -> str | None:
    """The id of the run that was blessed last for a pipeline and seed."""
    runs = [one.run for one in baselines(home, pipeline).blessed if one.seed == seed]
    return runs[-1] if runs else None


def blessed_runs(home: Path) -> set[str]:
    """The ids of all runs that are a baseline now, of any pipeline. Raises `ConfigError` where what was blessed cannot
    be read."""
    current: set[str] = set()
    for file in (home / "baselines").glob("*.json"):
        by_seed = {one.seed: one.run for one in baselines(home, file.stem).blessed}
        current |= set(by_seed.values())
    return current


def seed_of(run: Path) -> int:
    """The seed of a run, by its folder. Raises `ConfigError` where its config cannot be read."""
    try:
        return int(json.loads((run / "config.json").read_bytes())["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("the config of this run cannot be read", where=str(run / "config.json")) from error


def run_scores(store: Store, record: RunRecordDocument) -> tuple[dict[tuple[str, str], Sampled], list[str]]:
    """The scores of a run that the store still has, and what it has not, a line each."""
    scores: dict[tuple[str, str], Sampled] = {}
    trouble = []
    for stage in record.stages:
        program, _, checkpoint = stage.name.partition(".")
        if program != "score":
            continue
        found = read_scores(store, stage.key)
        if isinstance(found, str):
            trouble.append(f"its scores of {checkpoint} {found}")
        else:
            scores |= {(checkpoint, benchmark): one for benchmark, one in found.items()}
    return scores, trouble


def read_scores(store: Store, key: str) -> dict[str, Sampled] | str:
    """Benchmark -> scores, of a score artifact; or in words what has become of them."""
    found = store.find("score", key)
    if found.artifact is None:
        return f"cannot be read ({found.damage})" if found.damage else "are gone from the store"
    try:
        entries = _METRICS.validate_json((found.artifact.folder / "metrics.json").read_bytes())
        outcomes = load_outcomes(found.artifact)
    except (OSError, ValidationError, StoreError) as error:
        return f"cannot be read ({type(error).__name__})"
    return {
        benchmark: Sampled(
            dict(zip(outcomes[benchmark].problems, outcomes[benchmark].shares(), strict=True)),
            entry.k,
            entry.protocol,
            entry.protocol_details,
            entry.truncated / (entry.n * entry.k),
            entry.no_answer / (entry.n * entry.k),
        )
        for benchmark, entry in entries.items()
    }


def file_scores(path: Path) -> dict[tuple[str, str], Sampled]:
    """The scores in a file or in the folder of a score artifact. Raises `ConfigError` where they cannot be read."""
    try:
        measured = read_measured(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the scores cannot be read: {error}") from error
    return {(ANY, benchmark): of_scores(one) for benchmark, one in measured.items()}


def find_anchor(
    store: Store, pipeline: str, seed: int, named: str | None, this: str, protocols: set[str]
) -> Anchor | None:
    """What a run is held against: what the config names, else the run that was blessed last, else the first run
    (`first_run`); None where there is none.

    Args:
        named: `gate.baseline`.
        this: the run's own id, which comes after those it is compared with.
        protocols: under which the run's scores were made.

    Raises:
        BaselineLost: what was chosen is no run that is there, or none of its scores are.
        ConfigError: the scores file that the config names cannot be read.
    """
    anchor = chosen_anchor(store, pipeline, seed, named)
    if anchor is None:
        return first_run(store, pipeline, seed, this, protocols)
    if not anchor.scores:
        raise without_scores(store.home, anchor, named)
    return anchor


def chosen_anchor(store: Store, pipeline: str, seed: int, named: str | None) -> Anchor | None:
    """What was chosen to be compared with: what the config names, else the run that was blessed last; None where
    nothing was chosen. Of a run that has no scores any more, `trouble` says why. Raises as `find_anchor`."""
    home = store.home
    if named is not None:
        if (path := Path(named).expanduser()).exists():
            return Anchor(str(path), True, file_scores(path))
        try:
            record = load_run(find_run(home, named))
        except ConfigError as error:
            what = f"{error.message} ({error.where})" if error.where else error.message
            raise BaselineLost(named, what, where="gate.baseline", fix=_ANOTHER_NAMED) from error
    else:
        blessed = blessed_run(home, pipeline, seed)
        if blessed is None:
            return None
        record = load_blessed(home, blessed)
    scores, trouble = run_scores(store, record)
    if not scores and not trouble:
        trouble = ["it has no score"]
    return Anchor(record.id, True, scores, tuple(f"{record.id}: {line}" for line in trouble))


def load_blessed(home: Path, run: str) -> RunRecordDocument:
    """The record of a blessed run, by its whole id: one whose id only begins so is another. Raises `BaselineLost` where
    it is gone or cannot be read."""
    folder = home / "runs" / run
    record = read_run(folder)
    if record is not None:
        return record
    if not folder.is_dir():
        raise BaselineLost(run, f"run {run} was blessed and is gone", where=str(folder), fix=_ANOTHER_BLESSED)
    message, fix = f"run {run} was blessed and its record cannot be read", f"Restore the file. {_ANOTHER_BLESSED}"
    raise BaselineLost(run, message, where=str(folder / "run.json"), fix=fix)


def without_scores(home: Path, anchor: Anchor, named: str | None) -> BaselineLost:
    """The error for a baseline none of whose scores are there."""
    why = "; ".join(line.removeprefix(f"{anchor.name}: ") for line in anchor.trouble) or "it has no score"
    where = "gate.baseline" if named is not None else str(home / "runs" / anchor.name)
    fix = _ANOTHER_NAMED if named is not None else _ANOTHER_BLESSED
    return BaselineLost(anchor.name, f"run {anchor.name} cannot be compared with: {why}", where=where, fix=fix)


def first_run(store: Store, pipeline: str, seed: int, this: str, protocols: set[str]) -> Anchor | None:
    """The first run before `this` with its seed and one of its protocols whose scores are still there: what a run is
    held against where nothing was chosen, or nothing is left of it. None where there is none."""
    for folder, record in earlier_runs(store.home, pipeline, this):
        if not protocols & _protocols(store, record) or seed_of(folder) != seed:
            continue
        scores, trouble = run_scores(store, record)
        if scores:
            return Anchor(record.id, False, scores, tuple(f"{record.id}: {line}" for line in trouble))
    return None


def _protocols(store: Store, record: RunRecordDocument) -> set[str]:
    """The protocols of those of a run's scores that are still there; the scores themselves are not read."""
    found: set[str] = set()
    for stage in record.stages:
        if stage.name.startswith("score."):
            with contextlib.suppress(OSError, ValidationError):
                entries = _METRICS.validate_json((store.folder("score", stage.key) / "metrics.json").read_bytes())
                found |= {entry.protocol for entry in entries.values()}
    return found


def earlier_runs(home: Path, pipeline: str, this: str) -> Iterator[tuple[Path, RunRecordDocument]]:
    """The runs of a pipeline before the run `this`, oldest first; records that cannot be read are passed over."""
    for file in sorted((home / "runs").glob("*/run.json")):
        record = RunRecordDocument.read(file) if file.parent.name < this else None
        if record is not None and record.name == pipeline:
            yield file.parent, record


def evidence(record: RunRecordDocument) -> tuple[str, ...]:
    """The keys of a run's scores: two runs with the same have looked once, not twice."""
    return tuple(sorted(stage.key for stage in record.stages if stage.name.startswith("score.")))


def look_at(anchor: str, earlier: Iterable[RunRecordDocument], this: RunRecordDocument) -> int:
    """Which look at the anchor this run is, counted from 1. What is the same scores again, from the cache, is the same
    look again."""
    looks = {evidence(record): record.look for record in earlier if record.anchor == anchor and record.look}
    return looks.get(evidence(this)) or 1 + max(looks.values(), default=0)


def window_of(
    store: Store, seed: int, earlier: list[tuple[Path, RunRecordDocument]], this: RunRecordDocument, size: int
) -> list[tuple[str, Scores]]:
    """The last runs before this one, of its seed, with different scores each, as far as the store has them: (id,
    scores), latest first."""
    found: list[tuple[str, Scores]] = []
    seen = {evidence(this), ()}
    for folder, record in reversed(earlier):
        if len(found) == size:
            break
        if (keys := evidence(record)) in seen or seed_of(folder) != seed:
            continue
        seen.add(keys)
        if scores := run_scores(store, record)[0]:
            found.append((record.id, scores))
    return found
