"""The artifact store: whole artifacts or none, found by key, checked by digest.

    HOME/store/STAGE/KEY/    an artifact: payload, `record/` (logs, curves, timings) and `manifest.json`, written last
    HOME/work/STAGE/KEY/     a stage in progress: spec.json, stage.log, events.jsonl, `state/` (for resuming), `out/` (the payload to be)
    HOME/locks/              one flock per key; the kernel frees it when its holder dies
    HOME/latest/CONFIG/      what each stage of a named pipeline was last time: `plan` explains itself against it
    HOME/trash/              artifacts set aside because they were damaged or forced to be made again

An artifact's digest covers its content: every file but `manifest.json` and those below `record/`, where two equal results may differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import StoreError
from pipeline.identity import DigestMemo, digest
from stages.runtime import write_json

SCHEMA = 1
LOCK_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One finished artifact and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    def content_digest(self, select: tuple[str, ...] = ()) -> str:
        """Digest of the content, or of the part of it below the selected files or folders (names relative to the artifact)."""
        files = [
            [f["path"], f["sha256"]]
            for f in self.manifest["files"]
            if not f["path"].startswith("record/")
            and (not select or any(f["path"] == s or f["path"].startswith(s.rstrip("/") + "/") for s in select))
        ]
        return digest(files)


@dataclasses.dataclass(frozen=True)
class Found:
    """The outcome of looking a key up: an artifact, or why there is none."""

    artifact: Artifact | None
    damage: str = ""


class Store:
    """A store below one home folder. Creating it makes the folders and raises `StoreError` if they cannot be written."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        try:
            for name in ("store", "work", "locks", "latest", "trash", "runs", "cache"):
                (self.home / name).mkdir(parents=True, exist_ok=True)
            probe = self.home / "cache" / f".probe.{os.getpid()}"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"the store folder {self.home} cannot be written: {error.strerror}",
                where="home",
                fix="Choose another folder with `home:` in the config, or give yourself write permission.",
            ) from error
        self.memo = DigestMemo(self.home / "cache" / "digests.json")

    @classmethod
    def existing(cls, home: Path) -> Store:
        """A store to look into. Raises `StoreError` where there is none, and makes none."""
        if not (home / "store").is_dir():
            raise StoreError(f"there is no store in {home}", where="--home", fix="Name the home folder of earlier runs (default: .vcore).")
        return cls(home)

    def folder(self, program: str, key: str) -> Path:
        return self.home / "store" / program / key

    def work(self, program: str, key: str) -> Path:
        return self.home / "work" / program / key

    def find(self, program: str, key: str, *, reread: bool = False) -> Found:
        """Look an artifact up and check every file of it against its manifest."""
        folder = self.folder(program, key)
        if not folder.is_dir():
            return Found(None)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            files = manifest["files"]
        except (OSError, ValueError, KeyError) as error:
            return Found(None, f"manifest.json unreadable ({type(error).__name__})")
        for entry in files:
            file = folder / entry["path"]
            if not file.is_file():
                return Found(None, f"file {entry['path']} missing")
            if file.stat().st_size != entry["size"] or self.memo.sha256(file, reread=reread) != entry["sha256"]:
                return Found(None, f"file {entry['path']} damaged")
        return Found(Artifact(folder, manifest))

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
        """Remove them. Call it with the key's lock held."""
        if self.has_remains(program, key):
            shutil.rmtree(self.work(program, key))

    def set_aside(self, program: str, key: str) -> Path:
        """Move an artifact to the trash (damaged, or forced to be made again); returns where it is now."""
        target = self.home / "trash" / f"{program}-{key[:16]}-{time.time_ns()}"
        os.rename(self.folder(program, key), target)
        return target

    def publish(self, program: str, key: str, manifest: dict[str, Any]) -> Artifact:
        """Turn `work/.../out` into the artifact: hash and flush every file, write the manifest last, rename the folder into place."""
        out = self.work(program, key) / "out"
        files: list[dict[str, Any]] = []
        for file in sorted(p for p in out.rglob("*") if p.is_file()):
            if file == out / "manifest.json":
                continue  # of an attempt that was killed between its manifest and the rename
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
            files.append({"path": str(file.relative_to(out)), "size": file.stat().st_size, "sha256": self.memo.sha256(file)})
        complete = {"schema": SCHEMA, **manifest, "files": files}
        complete["digest"] = Artifact(out, complete).content_digest()
        write_json(out / "manifest.json", complete)
        target = self.folder(program, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(out, target)
        _flush_folder(target.parent)
        for entry in files:
            self.memo.moved(target / entry["path"], entry["sha256"])
        self.memo.save()
        shutil.rmtree(self.work(program, key))
        return Artifact(target, complete)

    def place(self, program: str, key: str, folder: Path, manifest: dict[str, Any]) -> Artifact:
        """Make a folder with an artifact's checked files the artifact: the manifest last, then one rename."""
        write_json(folder / "manifest.json", manifest)
        target = self.folder(program, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, target)
        _flush_folder(target.parent)
        for entry in manifest["files"]:
            self.memo.moved(target / entry["path"], entry["sha256"])
        self.memo.save()
        return Artifact(target, manifest)

    def latest(self, pipeline: str) -> dict[str, dict[str, Any]]:
        """What each stage of a named pipeline was last time: stage -> {key, preimage, seconds}."""
        out = {}
        for file in sorted((self.home / "latest" / pipeline).glob("*.json")):
            with contextlib.suppress(ValueError, OSError):  # only used to explain a plan
                out[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        return out

    def typical_seconds(self) -> dict[str, float]:
        """Stage name -> the seconds one of that name took last, in whatever pipeline."""
        files = sorted((self.home / "latest").glob("*/*.json"), key=lambda file: file.stat().st_mtime)
        return {file.stem: float(json.loads(file.read_text(encoding="utf-8"))["seconds"]) for file in files}

    def remember(self, pipeline: str, stage: str, manifest: dict[str, Any]) -> None:
        folder = self.home / "latest" / pipeline
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{stage}.json", {name: manifest[name] for name in ("key", "preimage", "seconds")})

    @contextlib.contextmanager
    def lock(self, program: str, key: str, waiting: Callable[[str], None], check: Callable[[], None] = lambda: None) -> Iterator[int]:
        """Hold the key alone; yields the lock's file descriptor, which a stage process inherits so that an orphan keeps it.

        While another process holds it, `waiting` is called once with who that is, and `check` again and again: it may raise to give up.
        """
        path = self.home / "locks" / f"{program}.{key}.lock"
        with open(path, "a+", encoding="utf-8") as file:
            if not _try_lock(file):
                file.seek(0)
                waiting(file.read().strip() or "another process")
                while not _try_lock(file):
                    check()
                    time.sleep(LOCK_POLL_SECONDS)
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
            os.set_inheritable(file.fileno(), True)
            yield file.fileno()

    def artifacts(self) -> Iterator[tuple[str, str, Path]]:
        """Every (stage, key, folder) in the store."""
        for program in sorted((self.home / "store").iterdir()):
            for folder in sorted(program.iterdir()):
                yield program.name, folder.name, folder


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
