"""Looking an artifact up by name, taking one out of the store, and removing what nothing needs any more.

An artifact is named by its key or the beginning of it, by a stage of the latest run (`sft`), or by a stage of any run
(`RUN:sft`).
"""

import contextlib
import dataclasses
import fnmatch
import os
import shutil
import time
from pathlib import Path

from pipeline.core.digests import DigestMemo
from pipeline.core.errors import ConfigError, StoreError
from pipeline.core.locks import open_lock, try_lock
from pipeline.run.documents import RunRecordDocument
from pipeline.run.gates.baseline import blessed_runs, load_blessed
from pipeline.run.record import another_with, find_run, list_runs, load_run
from pipeline.store.store import Artifact, Store

SHORTEST_KEY = 4


def whole_artifact(store: Store, program: str, key: str, fix: str = "The next run makes it again.") -> Artifact:
    """The artifact PROGRAM/KEY, checked. Raises `StoreError` where it is damaged or gone."""
    looked_up = store.find(program, key)
    if looked_up.artifact is None:
        damage = looked_up.damage or "it is gone from the store"
        raise StoreError(damage, where=f"{program}/{key[:12]}", fix=fix)
    return looked_up.artifact


def find_artifact(store: Store, name: str) -> Artifact:
    """The artifact that a word on the command line means, checked. Raises `ConfigError` for none or several,
    `StoreError` for one that is damaged."""
    matching = []
    if len(name) >= SHORTEST_KEY:
        matching = [(program, key) for program, key, _ in store.artifacts() if key.startswith(name)]
    if len(matching) > 1:
        raise ConfigError(f"{name!r} stands for {len(matching)} artifacts", fix="Give more of the key: vcore store ls")
    if matching:
        return whole_artifact(store, *matching[0])
    run, _, stage = name.rpartition(":")
    record = load_run(find_run(store.home, run or "latest"))
    keys = {entry.name: entry.key for entry in record.stages}
    if stage not in keys:
        known = ", ".join(keys) or "none"
        message = f"{name!r} is no key of this store, and run {record.id} has no stage {stage!r}; it has {known}"
        raise ConfigError(message, fix=another_with(store.home, stage, exact=True) if run in ("", "latest") else "")
    return whole_artifact(store, stage.partition(".")[0], keys[stage])


def export(artifact: Artifact, target: Path) -> int:
    """Copy a whole artifact, manifest included, to a folder that does not exist yet; every copied file is read back and
    checked.

    Returns the bytes copied. The folder appears under its name only when it is complete.
    """
    target = target.expanduser()
    if target.exists():
        raise ConfigError(f"{target} exists", where="TARGET", fix="Name a folder that does not exist yet.")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"the folder {target.absolute().parent} does not exist", where="TARGET")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        copy(artifact.folder, partial)
        memo = DigestMemo(partial / ".none")
        for entry in artifact.manifest.files:
            if memo.sha256(partial / entry.path) != entry.sha256:
                raise StoreError(
                    f"file {entry.path} is not what its manifest says",
                    where=str(artifact.folder),
                    fix="vcore store verify",
                )
        os.rename(partial, target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}", where="TARGET") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return artifact.manifest.size


def copy(source: Path, target: Path) -> None:
    """Copy a file or a whole folder, links as what they stand for. Raises the first `OSError`, where `copytree`
    collects a list of them."""
    if source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            copy(entry, target / entry.name)
    else:
        shutil.copy2(source, target)


@dataclasses.dataclass(frozen=True)
class Removal:
    """One folder that `collect` would remove, its size in bytes, and why nothing needs it."""

    what: str
    folder: Path
    bytes: int
    reason: str
    program: str = ""
    key: str = ""


def collect(store: Store, *, keep_last: int, keep_named: tuple[str, ...], max_bytes: int | None) -> list[Removal]:
    """What can go, oldest first: artifacts that no kept run needs, the trash, and what killed processes left that
    nothing can go on from.

    Kept are the artifacts of the last `keep_last` whole runs of every pipeline, of every run of the pipelines that
    match a pattern in `keep_named`, of runs that are a baseline (`vcore bless`), and of runs that go on. A run is whole
    when it came to its report: one of a part, or that failed or was killed, keeps what it made besides, until a whole
    one follows. With `max_bytes` artifacts go only until the store is no larger. Interrupted attempts that have saved a
    state stay: a run resumes from them.

    Raises:
        ConfigError: a pattern matches no pipeline, or the record of a baseline cannot be read, so that what it needs is
            not known. A baseline whose whole folder was removed needs nothing any more.
    """
    runs, blessed = list_runs(store.home), blessed_runs(store.home)
    for run in sorted(blessed):
        if (store.home / "runs" / run).exists():
            load_blessed(store.home, run)
    names = sorted({record.name for record in runs})
    for pattern in keep_named:
        if not any(fnmatch.fnmatch(name, pattern) for name in names):
            fix = f"There are runs of {', '.join(names)}." if names else "No run is recorded."
            raise ConfigError(f"{pattern!r} matches no pipeline that has run", where="--keep-named", fix=fix)
    needed = _needed(runs, keep_last, keep_named, blessed)
    trash = sorted((store.home / "trash").glob("*"))
    removals = [Removal("trash", folder, _size(folder), "set aside") for folder in trash]
    attempts = sorted((store.home / "work").glob("*/*"))
    removals += [removal for folder in attempts if (removal := _leftover(store, folder)) is not None]
    artifacts = [(folder.stat().st_mtime, program, key, folder) for program, key, folder in store.artifacts()]
    total = sum(_size(folder) for *_, folder in artifacts)
    for _, program, key, folder in sorted(artifacts):
        if key in needed or (max_bytes is not None and total <= max_bytes):
            continue
        size = _size(folder)
        total -= size
        removals.append(Removal(f"{program}/{key[:12]}", folder, size, "no kept run needs it", program, key))
    return removals


def _needed(runs: list[RunRecordDocument], keep_last: int, keep_named: tuple[str, ...], blessed: set[str]) -> set[str]:
    """The keys of what the kept runs have made and planned."""
    by_name: dict[str, list[RunRecordDocument]] = {}
    for record in runs:
        by_name.setdefault(record.name, []).append(record)
    keep = [record for records in by_name.values() for record in _last(records, keep_last)]
    keep += [r for r in runs if r.status == "running" or any(fnmatch.fnmatch(r.name, p) for p in keep_named)]
    keep += [r for r in runs if r.id in blessed]
    planned = {entry.key for record in keep for entry in record.plan if entry.key}
    further = {key for record in keep for more in record.further for key in (more.generations, more.scores) if key}
    return planned | further | {entry.key for record in keep for entry in record.stages}


def remove(store: Store, removals: list[Removal]) -> tuple[int, list[str]]:
    """Remove them; returns the bytes freed and what was left alone because a run is using it.

    A folder first gets a name in the trash, so that nobody reads half an artifact.
    """
    freed, busy = 0, []
    for removal in removals:
        if not removal.key:
            with contextlib.suppress(FileNotFoundError):  # somebody else is clearing up, too
                shutil.rmtree(removal.folder)
                freed += removal.bytes
            continue
        lock = store.home / "locks" / f"{removal.program}.{removal.key}.lock"
        with open_lock(lock) as file:
            if not try_lock(file):
                busy.append(removal.what)
                continue
            if not removal.folder.exists():
                continue
            aside = store.home / "trash" / f"removed-{removal.program}-{removal.key[:16]}-{time.time_ns()}"
            os.rename(removal.folder, aside)
            shutil.rmtree(aside)
            freed += removal.bytes
    return freed, busy


def _last(records: list[RunRecordDocument], count: int) -> list[RunRecordDocument]:
    """Of one pipeline's runs, the last so many whole ones, and what came after the last of them."""
    if count == 0:
        return []
    ended = [i for i, record in enumerate(records) if record.status == "done"]
    whole = [i for i in ended if any(stage.name == "report" for stage in records[i].stages)]
    return [records[i] for i in whole[-count:]] + records[whole[-1] + 1 if whole else 0 :]


def _leftover(store: Store, folder: Path) -> Removal | None:
    """A folder below `work/` as one to remove, where no run goes on from it. A process that is at it holds the key's
    lock."""
    program, (key, _, kind) = folder.parent.name, folder.name.partition(".")
    if kind:  # KEY.incoming: copied from elsewhere, which begins anew every time
        return Removal("work", folder, _size(folder), "left of a copy that was not finished", program, key)
    if store.folder(program, key).is_dir() and not store.has_state(program, key):
        return Removal("work", folder, _size(folder), "its artifact exists", program, key)
    return None


def _size(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a process that is at work there has removed it
            size += file.stat().st_size if file.is_file() else 0
    return size
