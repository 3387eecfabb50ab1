"""A second home for artifacts, at any fsspec URL (file://, s3://, gs://, ...): what one machine computed, another finds.

    URL/STAGE/KEY/...            the artifact's files, as in the store
    URL/STAGE/KEY/manifest.json  written last and only if it is not there: a reader sees a whole artifact or none

A key stands for a computation, so two machines that make the same artifact may both upload it; the first manifest counts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from typing import Any

from pipeline.errors import StoreError
from pipeline.store import Artifact, Store

MANIFEST = "manifest.json"


class Mirror:
    """A mirror of stores. Raises `StoreError` where the URL cannot be used; so does every method when the other side fails."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._told("opened"):
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)

    def manifest(self, program: str, key: str) -> dict[str, Any] | None:
        """The manifest of a mirrored artifact, or None where there is no whole one."""
        with self._told("read"):
            try:
                loaded: dict[str, Any] = json.loads(self._files.cat_file(f"{self._folder(program, key)}/{MANIFEST}"))
            except (FileNotFoundError, ValueError):  # none, or one whose upload was cut off
                return None
        return loaded if loaded.get("key") == key else None

    def push(self, artifact: Artifact) -> bool:
        """Upload an artifact unless it is there; whether it was uploaded now."""
        program, key = artifact.manifest["stage"], artifact.key
        if self.manifest(program, key) is not None:
            return False
        folder = self._folder(program, key)
        with self._told("written"):
            for entry in artifact.manifest["files"]:
                target = f"{folder}/{entry['path']}"
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(artifact.folder / entry["path"]), target)
            text = json.dumps(artifact.manifest, ensure_ascii=False, indent=2).encode()
            try:
                # Only-if-absent where the other side has it (S3, GCS); elsewhere a look just before.
                self._files.pipe_file(f"{folder}/{MANIFEST}", text, mode="create")
            except FileExistsError:
                if self.manifest(program, key) is not None:
                    return False  # another machine was first
                self._files.pipe_file(f"{folder}/{MANIFEST}", text)  # half a manifest, of an upload that was cut off
        return True

    def fetch(self, store: Store, program: str, key: str) -> Artifact | None:
        """Download a whole artifact into the store, every file checked against the manifest; None where there is none.

        Call it with the key's lock held. Raises `StoreError` for a file that is not what the manifest says.
        """
        manifest = self.manifest(program, key)
        if manifest is None:
            return None
        incoming = store.home / "work" / program / f"{key}.incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        for entry in manifest["files"]:
            file = incoming / entry["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            with self._told("read"):
                self._files.get_file(f"{self._folder(program, key)}/{entry['path']}", str(file))
            if store.memo.sha256(file) != entry["sha256"]:
                shutil.rmtree(incoming)
                raise StoreError(
                    f"{entry['path']} of {program}/{key[:12]} is not what its manifest says",
                    where=self.url,
                    fix=f"Remove {self._folder(program, key)} there; the next run makes the artifact again and uploads it.",
                )
        return store.place(program, key, incoming, manifest)

    def _folder(self, program: str, key: str) -> str:
        return f"{self._root.rstrip('/')}/{program}/{key}"

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Whatever the other side raises (each protocol has errors of its own) as one message."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"the mirror {self.url} cannot be {what}: {type(error).__name__}: {error}",
                where="execution.mirror",
                fix="Check the URL, the network and the credentials, or run with --set execution.mirror=null; the store itself is whole.",
            ) from error
