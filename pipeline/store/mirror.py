"""A second home for artifacts, at any fsspec URL (file://, s3://, gs://, ...): what one machine made, another finds.

    URL/STAGE/KEY/UPLOAD/...     the artifact's files, as in the store
    URL/STAGE/KEY/manifest.json  written last and only if it is not there: a reader sees a whole artifact or none

A key stands for a computation, so two machines that make the same artifact may both upload it, with other logs and
times. Each upload has a folder of its own, which its manifest names (`upload`), so that neither writes into the other's
files; the first manifest counts. A manifest that names none is of the layout before this one, with the files beside it.
"""

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from typing import Annotated

from pydantic import StringConstraints

from pipeline.core.errors import StoreError
from pipeline.store.documents import Manifest
from pipeline.store.store import Artifact, Store

MANIFEST = "manifest.json"


class MirroredManifest(Manifest):
    """A manifest in the mirror, which says where the artifact's files are."""

    upload: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]*$")] = ""
    """Folder of the files beside the manifest, which it cannot lead out of. Empty: they lie beside the manifest."""


class Mirror:
    """A mirror of stores. Every method, and making one, raises `StoreError` when the other side fails."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._errors("opened"):
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)

    def manifest(self, program: str, key: str) -> MirroredManifest | None:
        """The manifest of a mirrored artifact, or None where there is no whole one."""
        with self._errors("read"):
            try:
                text = self._files.cat_file(f"{self._folder(program, key)}/{MANIFEST}")
                return MirroredManifest.parse(text, program, key)
            # None, one whose upload was cut off, or one that names files outside its folder.
            except (FileNotFoundError, ValueError):
                return None

    def push(self, artifact: Artifact) -> bool:
        """Upload an artifact unless it is there; whether it was uploaded now."""
        program, key = artifact.manifest.stage, artifact.key
        if self.manifest(program, key) is not None:
            return False
        folder, upload = self._folder(program, key), secrets.token_hex(8)
        counts = False
        try:
            with self._errors("written"):
                for entry in artifact.manifest.files:
                    target = f"{folder}/{upload}/{entry.path}"
                    self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(artifact.folder / entry.path), target)
                manifest = artifact.manifest.to_json() | {"upload": upload}
                text = json.dumps(manifest, ensure_ascii=False, indent=2).encode()
                try:
                    # Only-if-absent where the other side has it (S3, GCS); elsewhere a look just before.
                    self._files.pipe_file(f"{folder}/{MANIFEST}", text, mode="create")
                    counts = True
                except FileExistsError:
                    if self.manifest(program, key) is None:  # half a manifest, of an upload that was cut off
                        self._files.pipe_file(f"{folder}/{MANIFEST}", text)
                        counts = True
        finally:
            if not counts:  # another machine was first, or the other side has failed and may fail here, too
                with contextlib.suppress(Exception):
                    self._files.rm(f"{folder}/{upload}", recursive=True)
        return counts

    def fetch(self, store: Store, program: str, key: str) -> Artifact | None:
        """Download a whole artifact into the store, every file checked against the manifest; None where there is none.

        Call it with the key's lock held. Raises `StoreError` for a file that is not what the manifest says.
        """
        manifest = self.manifest(program, key)
        if manifest is None:
            return None
        source = "/".join(filter(None, [self._folder(program, key), manifest.upload]))
        incoming = store.home / "work" / program / f"{key}.incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        for entry in manifest.files:
            file = incoming / entry.path
            file.parent.mkdir(parents=True, exist_ok=True)
            with self._errors("read"):
                self._files.get_file(f"{source}/{entry.path}", str(file))
            if store.memo.sha256(file) != entry.sha256:
                shutil.rmtree(incoming)
                message = f"{entry.path} of {program}/{key[:12]} is not what its manifest says"
                again = "the next run makes the artifact again and uploads it"
                fix = f"Remove {self._folder(program, key)} there; {again}."
                raise StoreError(message, where=self.url, fix=fix)
        local = Manifest.model_validate(manifest.model_dump(exclude_unset=True, exclude={"upload"}))
        return store.place(program, key, incoming, local)

    def _folder(self, program: str, key: str) -> str:
        return f"{self._root.rstrip('/')}/{program}/{key}"

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Whatever the other side raises (each protocol has errors of its own) as one message."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            message = f"the mirror {self.url} cannot be {what}: {type(error).__name__}: {error}"
            without = "run with --set execution.mirror=null; the store itself is whole"
            fix = f"Check the URL, the network and the credentials, or {without}."
            raise StoreError(message, where="execution.mirror", fix=fix) from error
