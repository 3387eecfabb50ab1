"""The artifact store: whole artifacts or none, found by key, checked by digest.

    HOME/store/STAGE/KEY/    an artifact: payload, `record/` (logs, curves, timings) and `manifest.json`, written last
    HOME/work/STAGE/KEY/     a stage in progress: spec.json, stage.log, events.jsonl, `state/` to resume from, `out/`
    HOME/locks/              one lock per key; the kernel frees it when its holder dies
    HOME/latest/CONFIG/      what each stage of a named pipeline made last: `plan` explains itself against it
    HOME/trash/              artifacts set aside because they were damaged or forced to be made again

All of it is on one file system, because an artifact comes and goes by a rename. `flock` has to hold between the
machines that share it (local disks, NFS version 4; not NFS that is mounted with `nolock` or `local_lock`).

An artifact's digest covers its content: every file but `manifest.json` and those below `record/`, where two equal
results may differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.core.digests import DigestMemo
from pipeline.core.errors import StoreError
from pipeline.core.locks import open_lock, read_holder, this_process, try_lock, write_holder
from pipeline.store.documents import FileEntry, LatestEntry, Manifest, ManifestDraft
from pipeline.store.scores import SCORES, write_summary

FOLDERS = ("store", "work", "locks", "latest", "trash", "runs", "cache")
LOCK_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One finished artifact and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        return self.manifest.key

    def content_digest(self, select: tuple[str, ...] = ()) -> str:
        """Digest of the content, or of the part of it below the selected files or folders of the artifact."""
        return self.manifest.content_digest(select)


@dataclasses.dataclass(frozen=True)
class Lookup:
    """The outcome of looking a key up: an artifact, or why there is none."""

    artifact: Artifact | None
    damage: str = ""


class Store:
    """A store below one home folder."""

    def __init__(self, home: Path, *, writing: bool = True) -> None:
        """Open the store and make its folders; raises `StoreError` where they cannot be written.

        Args:
            writing: False only looks into a store: nothing is made or written.
        """
        self.home = home.resolve()
        if writing:
            self._prepare()
        self.memo = DigestMemo(self.home / "cache" / "digests.json")

    def _prepare(self) -> None:
        probe = self.home / "cache" / f".probe.{secrets.token_hex(6)}"  # machines that share the home may look at once
        try:
            for name in FOLDERS:
                (self.home / name).mkdir(parents=True, exist_ok=True)
            try:
                probe.write_text("")
            finally:
                probe.unlink(missing_ok=True)
            disks = {name: (self.home / name).stat().st_dev for name in ("work", "store", "trash")}
        except OSError as error:
            message = f"the store folder {self.home} cannot be written: {error.strerror}"
            fix = "Choose another folder with `home:` in the config, or give yourself write permission."
            raise StoreError(message, where="home", fix=fix) from error
        apart = [self.home / name for name, disk in disks.items() if disk != disks["work"]]
        if apart:
            message = f"{apart[0]} is on another file system than {self.home / 'work'}"
            fix = "Put the whole home on the other disk (`home:` in the config, or a link to it), not one folder of it."
            raise StoreError(f"{message}, and artifacts move between them by a rename", where="home", fix=fix)

    @classmethod
    def existing(cls, home: Path, *, writing: bool = False) -> Store:
        """A store to look into, or to remove from (`writing`). Raises `StoreError` where there is none."""
        if not (home / "store").is_dir():
            fix = "Name the home folder of earlier runs (default: .vcore)."
            raise StoreError(f"there is no store in {home}", where="--home", fix=fix)
        return cls(home, writing=writing)

    def folder(self, program: str, key: str) -> Path:
        """Where an artifact is, or would be."""
        return self.home / "store" / program / key

    def work(self, program: str, key: str) -> Path:
        """Where an artifact is made."""
        return self.home / "work" / program / key

    def find(self, program: str, key: str, *, reread: bool = False) -> Lookup:
        """Look an artifact up and check every file of it against its manifest. `reread`: whatever is remembered."""
        folder = self.folder(program, key)
        if not folder.is_dir():
            return Lookup(None)
        try:
            manifest = Manifest.parse((folder / "manifest.json").read_bytes(), program, key)
        except OSError as error:
            return Lookup(None, f"manifest.json unreadable ({type(error).__name__})")
        except ValueError as error:
            return Lookup(None, f"manifest.json {error}")
        if manifest.content_digest() != manifest.digest:
            return Lookup(None, "manifest.json damaged: its digest is not that of its files")
        for entry in manifest.files:
            file = folder / entry.path
            if not file.is_file():
                return Lookup(None, f"file {entry.path} missing")
            try:
                same = file.stat().st_size == entry.size and self.memo.sha256(file, reread=reread) == entry.sha256
            except OSError as error:
                return Lookup(None, f"file {entry.path} unreadable ({error.strerror})")
            if not same:
                return Lookup(None, f"file {entry.path} damaged")
        return Lookup(Artifact(folder, manifest))

    def has_state(self, program: str, key: str) -> bool:
        """Whether an interrupted attempt left something to resume from."""
        state = self.work(program, key) / "state"
        return state.is_dir() and any(state.iterdir())

    def has_remains(self, program: str, key: str) -> bool:
        """Whether a process was killed right after publishing: its work folder is there, the payload has moved.

        A forced run in progress, or interrupted, has its payload still there.
        """
        work = self.work(program, key)
        return work.is_dir() and not (work / "out").exists() and self.folder(program, key).is_dir()

    def clear_remains(self, program: str, key: str) -> None:
        """Remove what a process left that was killed right after publishing. Call it with the key's lock held."""
        if self.has_remains(program, key):
            shutil.rmtree(self.work(program, key))

    def set_aside(self, program: str, key: str) -> Path:
        """Move an artifact to the trash (damaged, or made again); returns where it is now.

        Call it with the key's lock held: without it, somebody else may have made a whole artifact meanwhile.
        """
        target = self.home / "trash" / f"{program}-{key[:16]}-{time.time_ns()}"
        os.rename(self.folder(program, key), target)
        return target

    def set_work_aside(self, program: str, key: str) -> None:
        """Move what an attempt has left to the trash: nothing may resume from it. Call it with the key's lock held."""
        os.rename(self.work(program, key), self.home / "trash" / f"work-{program}-{key[:16]}-{time.time_ns()}")

    def publish(self, program: str, key: str, manifest: ManifestDraft) -> Artifact:
        """Turn `work/.../out` into the artifact and remove the work folder. Call it with the key's lock held."""
        artifact = self.take(program, key, self.work(program, key) / "out", manifest)
        shutil.rmtree(self.work(program, key))
        return artifact

    def take(self, program: str, key: str, folder: Path, manifest: ManifestDraft) -> Artifact:
        """Make a folder below `work/` the artifact: hash and flush every file of it, then `place` it."""
        for leftover in (folder / "manifest.json", *folder.glob(".manifest.json.*")):
            leftover.unlink(missing_ok=True)  # of an attempt that was killed while it published
        if program == "score" and (folder / SCORES).is_file():
            write_summary(folder, self.memo.sha256(folder / SCORES))
        files: list[FileEntry] = []
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            _flush(file)
            path = str(file.relative_to(folder))
            files.append(FileEntry(path=path, size=file.stat().st_size, sha256=self.memo.sha256(file)))
        return self.place(program, key, folder, Manifest.complete(manifest, files))

    def place(self, program: str, key: str, folder: Path, manifest: Manifest) -> Artifact:
        """Make a folder with an artifact's checked files the artifact: the manifest last, then one rename.

        An earlier artifact of the key makes way only now, when nothing is left to be written, and comes back should the
        rename fail.
        """
        manifest.write(folder / "manifest.json")
        target = self.folder(program, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        earlier = self.set_aside(program, key) if target.exists() else None
        try:
            os.rename(folder, target)
        except OSError:
            if earlier is not None:
                os.rename(earlier, target)
            raise
        _flush(target.parent)
        for entry in manifest.files:
            self.memo.moved(target / entry.path, entry.sha256)
        self.memo.save()
        return Artifact(target, manifest)

    def latest(self, pipeline: str) -> dict[str, LatestEntry]:
        """What each stage of a named pipeline made last, by the stage's name."""
        files = sorted((self.home / "latest" / pipeline).glob("*.json"))
        return {file.stem: entry for file in files if (entry := LatestEntry.read(file)) is not None}

    def typical_seconds(self) -> dict[str, float]:
        """Stage name -> the seconds one of that name took last, in whatever pipeline."""
        files = sorted((self.home / "latest").glob("*/*.json"), key=lambda file: file.stat().st_mtime)
        return {file.stem: entry.seconds for file in files if (entry := LatestEntry.read(file)) is not None}

    def remember(self, pipeline: str, stage: str, manifest: Manifest) -> None:
        """Note what a stage of a named pipeline is now; where that is noted nothing is written, on a full disk too."""
        file = self.home / "latest" / pipeline / f"{stage}.json"
        entry = LatestEntry(key=manifest.key, preimage=manifest.preimage, seconds=manifest.seconds)
        if LatestEntry.read(file) != entry:
            file.parent.mkdir(parents=True, exist_ok=True)
            entry.write(file)

    @contextlib.contextmanager
    def lock(
        self, program: str, key: str, waiting: Callable[[str], None], check: Callable[[], None] = lambda: None
    ) -> Iterator[int]:
        """Hold the key alone; yields the lock's file descriptor, which a stage process inherits so that an orphan keeps
        the lock.

        Args:
            waiting: called once while another process holds the key, with who that is.
            check: called again and again meanwhile; it may raise to give up.
        """
        with open_lock(self._lock_file(program, key)) as file:
            if not try_lock(file):
                waiting(read_holder(file) or "another process")
                while not try_lock(file):
                    check()
                    time.sleep(LOCK_POLL_SECONDS)
            write_holder(file, this_process())
            os.set_inheritable(file.fileno(), True)
            yield file.fileno()

    def holder(self, program: str, key: str) -> str | None:
        """Who computes the key now: the process that holds its lock; None where none does."""
        try:
            with open(self._lock_file(program, key), encoding="utf-8") as file:
                return None if try_lock(file, shared=True) else read_holder(file) or "another process"
        except OSError:  # nobody has held it yet, or it is not ours to look at
            return None

    def _lock_file(self, program: str, key: str) -> Path:
        return self.home / "locks" / f"{program}.{key}.lock"

    def artifacts(self) -> Iterator[tuple[str, str, Path]]:
        """Every (stage, key, folder) in the store."""
        for folder in sorted((self.home / "store").glob("*/*")):
            yield folder.parent.name, folder.name, folder


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
