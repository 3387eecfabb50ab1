"""What the store writes about artifacts: manifests, the pre-images of their keys, and what a stage made last."""

import datetime
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError

from pipeline.core.digests import digest
from stages.harness.documents import Document

SCHEMA = 1
"""Of the manifest's layout."""


def utc_now() -> str:
    """The time, as documents say it: `2026-01-31T12:00:00+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"it names a file outside, {path}")
    return path


class FileEntry(Document):
    """One file of an artifact."""

    path: Annotated[str, AfterValidator(_inside)]
    """Relative to the artifact's folder."""
    size: int
    sha256: str


class OutsideInput(Document):
    """What was read from outside the store: a hub repository at a commit, or local files with a digest."""

    hub: str | None = None
    """Name of the repository, where it comes from the hub."""
    commit: str | None = None
    """The commit that the revision stood for."""
    sha256: str | None = None
    """Digest of the local file or folder, where it does not come from the hub."""


class Preimage(Document):
    """Everything that a stage's result depends on; its digest is the stage's key."""

    stage: str = ""
    """The stage program."""
    schema_version: int = Field(default=0, alias="schema")
    """Of the meaning of settings and payloads (pipeline/plan)."""
    settings: dict[str, Any] = {}
    """The identity part of the stage's settings."""
    seed: int = 0
    outside: dict[str, OutsideInput] = {}
    """Label of an outside input, such as `data.sft.0` -> what it was."""
    inputs: dict[str, str] = {}
    """Name of an input -> digest of the content that the stage takes."""
    code: dict[str, str] = {}
    """Source file -> digest of its syntax tree or bytes."""
    versions: dict[str, str] = {}
    """Library -> version, build tags left out."""

    @property
    def key(self) -> str:
        """The key of an artifact that is made from this."""
        return digest(self.to_json())


class InputRecord(Document):
    """The artifact that served as one input."""

    stage: str
    """Name of the stage that made it."""
    key: str
    digest: str
    """Of the part of its content that was taken."""


class GitState(Document):
    """The commit of the code; None where neither a checkout nor the version of a wheel says it."""

    commit: str | None = None
    """All digits of a checkout's, the first nine or ten of a wheel's."""
    dirty: bool | None = None
    """Whether the files differed from the commit, of a wheel when it was built."""


class Hardware(Document):
    """The machine that an artifact was made on."""

    cpu: str = "unknown"
    cores: int = 0
    """CPU cores that the process was allowed to use."""
    memory_gib: float = 0.0
    gpu: list[str] = []
    system: str = "unknown"


class Adopted(Document):
    """Why an artifact stands under a key although no stage made it under that key."""

    source: str = Field(alias="from")
    """A checkpoint's folder, or STAGE/KEY of an earlier artifact."""
    differences: list[str]
    """What was accepted to be different."""
    at: str


class ManifestDraft(Document):
    """What is known of an artifact before its files are hashed. Times are ISO 8601 in UTC."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    stage: str
    """The stage program: `generate`."""
    name: str = ""
    """The stage: `generate.sft`."""
    key: str
    preimage: Preimage
    inputs: dict[str, InputRecord] = {}
    git: GitState = GitState()
    argv: list[str] = []
    """`sys.argv` of the orchestrator."""
    command: str = ""
    """The command that repeats the run."""
    python: str = ""
    """The interpreter that ran the stage; empty in older manifests."""
    versions: dict[str, str] = {}
    """Library -> exact version, build tags included, as the stage's process found them when it began."""
    hardware: Hardware = Hardware()
    gpus: int | None = None
    """How many of the machine's GPUs the stage leased; None of a job on another machine, and of older artifacts."""
    comes_back: Literal["bit for bit", "to rounding", ""] = ""
    """How the same stage's content comes back on the same hardware, with the same versions, threads and processes;
    empty where nobody can say (a served model) and of older artifacts."""
    started: str = ""
    ended: str = ""
    seconds: float
    """How long the computation took."""
    peak_memory_gib: float = 0.0
    """The most resident memory that the largest of its processes had, in GiB; 0 where that is not known."""
    proof: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    adopted: Adopted | None = None
    """Present where the artifact was adopted (`vcore store adopt`)."""


class Manifest(ManifestDraft):
    """`manifest.json`: what an artifact is, how it came about, and its files."""

    files: list[FileEntry] = Field(min_length=1)
    digest: str
    """Of the content: of all files but those below `record/`."""

    @classmethod
    def parse(cls, text: bytes, program: str, key: str) -> Self:
        """The manifest of the artifact PROGRAM/KEY. Raises `ValueError` with the reason why the text cannot be that."""
        try:
            manifest = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                raise ValueError("unreadable (no JSON)") from None
            place = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"damaged: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
            ) from None
        if (manifest.stage, manifest.key) != (program, key):
            raise ValueError("damaged: it belongs to another artifact")
        return manifest

    @classmethod
    def complete(cls, draft: ManifestDraft, files: list[FileEntry]) -> Self:
        """The manifest of an artifact with these files."""
        given = {"schema": SCHEMA} | draft.to_json()
        return cls.model_validate(
            given | {"files": [file.to_json() for file in files], "digest": content_digest(files)}
        )

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def draft(self) -> ManifestDraft:
        """The manifest without its files, for an artifact that is published again."""
        return ManifestDraft.model_validate(self.model_dump(exclude_unset=True, exclude={"files", "digest"}))

    def content_digest(self, select: tuple[str, ...] = ()) -> str:
        """Digest of the content as listed, or of the part of it below the selected files or folders."""
        return content_digest(self.files, select)


def content_digest(files: Iterable[FileEntry], select: tuple[str, ...] = ()) -> str:
    """Digest of all files but those below `record/`, or of those below the selected files or folders."""
    return digest(
        [
            [file.path, file.sha256]
            for file in files
            if not file.path.startswith("record/")
            and (not select or any(file.path == s or file.path.startswith(s.rstrip("/") + "/") for s in select))
        ]
    )


class LatestEntry(Document):
    """`latest/PIPELINE/STAGE.json`: what a stage of a named pipeline made last."""

    key: str
    preimage: Preimage
    seconds: float
