"""Why a stage runs, in words: what differs from what it made before, and where an interrupted attempt goes on."""

import dataclasses
import datetime
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.store.documents import Preimage
from stages.harness.documents import EVENT, Document, Progress

PARTS = ("settings", "seed", "versions", "outside", "inputs", "code", "schema")
OWN_PARTS = ("settings", "seed", "outside")
"""What a config says of a stage itself, which is known before its inputs are made."""
LOOKED_AT = 300
"""Earlier artifacts that are looked at, the newest: reading them all must not make a plan slow."""
NAMED = 8
"""Differences that are named of an artifact that may have been made for something else."""


def differences(earlier: Preimage, now: Preimage, parts: tuple[str, ...] = PARTS) -> list[str]:
    """What changed between two pre-images, one phrase a change: `settings.learning_rate 0.002 → 0.001`,
    `stages/sft/run.py changed`."""
    out = []
    old, new = earlier.to_json(), now.to_json()
    for part in parts:
        for path, before, after in _changes(old.get(part), new.get(part), part):
            if part == "code":
                name = path.removeprefix("code.")
                out.append(f"{name} {'added' if before is None else 'removed' if after is None else 'changed'}")
            elif part == "inputs":
                out.append(f"input {path.removeprefix('inputs.')} has other content")
            elif part == "outside":
                out.append(f"{path.removeprefix('outside.').removesuffix('.sha256')} changed")
            elif part == "versions":
                out.append(f"{path.removeprefix('versions.')} {_short(before)} → {_short(after)}")
            elif isinstance(before, list) and isinstance(after, list):  # of other lengths; their beginnings say little
                out.append(f"{path} {len(before)} → {len(after)} entries")
            else:
                out.append(f"{path} {_short(before)} → {_short(after)}")
    return out


def _changes(old: Any, new: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted(old.keys() | new.keys())
            for change in _changes(old.get(key), new.get(key), f"{path}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            change for i, (a, b) in enumerate(zip(old, new, strict=True)) for change in _changes(a, b, f"{path}.{i}")
        ]
    return [] if old == new else [(path, old, new)]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


class _Origin(Document):
    """A manifest, as far as it says what an artifact was made from."""

    key: str
    name: str
    preimage: Preimage


@dataclasses.dataclass(frozen=True)
class _Made:
    """An earlier artifact: what it was made from, also as a set of (path, value), which is quick to compare."""

    key: str
    name: str
    at: float
    preimage: Preimage
    leaves: frozenset[tuple[str, str]]


def against_nearest(store: Path, program: str, name: str, preimage: Preimage) -> str | None:
    """How a stage differs from the most similar earlier artifact of a stage of that name, and which artifact that is.

    For a pipeline that has not run under its name yet: it was renamed, or is a cell of a sweep. None where there is no
    such artifact.
    """
    files = []
    for file in (store / program).glob("*/manifest.json"):
        try:
            files.append((file.stat().st_mtime_ns, file))
        except OSError:  # removed meanwhile
            continue
    leaves = _leaves(preimage.to_json())
    earlier = [
        made
        for at, file in sorted(files, reverse=True)[:LOOKED_AT]
        if (made := _made(file, at)) is not None and made.name == name
    ]
    if not earlier:
        return None
    nearest = min(earlier, key=lambda made: len({path for path, _ in made.leaves ^ leaves}))  # of equals the newest
    changes = differences(nearest.preimage, preimage)
    more = [f"and {len(changes) - NAMED} more differences"] if len(changes) > NAMED else []
    day = datetime.datetime.fromtimestamp(nearest.at, datetime.UTC)
    return f"{'; '.join([*changes[:NAMED], *more])} (nearest: {nearest.key[:12]} of {day:%Y-%m-%d %H:%M})"


@lru_cache(maxsize=10_000)
def _made(manifest: Path, mtime_ns: int) -> _Made | None:
    """Read once a process, however many cells of a sweep are planned."""
    record = _Origin.read(manifest)
    if record is None:
        return None
    return _Made(record.key, record.name, mtime_ns / 1e9, record.preimage, _leaves(record.preimage.to_json()))


def _leaves(value: Any, path: str = "") -> frozenset[tuple[str, str]]:
    if isinstance(value, dict):
        return frozenset().union(*(_leaves(item, f"{path}.{key}") for key, item in value.items()))
    return frozenset({(path, json.dumps(value, sort_keys=True))})


def resumes_from(work: Path) -> str:
    """From where an interrupted attempt goes on, as far as its work folder says: `resumes from checkpoint-120; it had
    come to ...`."""
    steps = _checkpoints(work)
    begun = f"resumes from checkpoint-{max(steps)}" if steps else "an interrupted attempt left its state"
    last = _last_progress(work / "events.jsonl")
    if last is None or last.step == 0:
        return begun
    return f"{begun}; it had come to {last.step}{f' of {last.total}' if last.total else ''} ({last.phase})"


def came_to_nothing(work: Path) -> bool:
    """Whether an attempt says that it ended at its first step: it left no checkpoint and no samples, so that there is
    nothing to go on from, whatever else lies in its folder."""
    last = _last_progress(work / "events.jsonl")
    samples = any(file.stat().st_size for file in (work / "state").glob("*.jsonl"))
    return last is not None and last.step == 0 and not samples and not _checkpoints(work)


def _checkpoints(work: Path) -> list[int]:
    """The steps of the checkpoints that an attempt has left."""
    files = (work / "state" / "checkpoints").glob("checkpoint-*/trainer_state.json")
    names = [file.parent.name.removeprefix("checkpoint-") for file in files]
    return [int(name) for name in names if name.isdigit()]


def _last_progress(events: Path) -> Progress | None:
    """The last progress that an attempt told; None where it told none."""
    try:
        with open(events, "rb") as file:
            file.seek(max(0, events.stat().st_size - 2**16))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            event = EVENT.validate_json(line)
        except ValueError:  # the first or the last line, cut
            continue
        if isinstance(event, Progress):
            return event
    return None
