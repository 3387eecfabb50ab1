"""What the orchestrator and a stage's process say to each other, as JSON files: spec, events, error and result.

The orchestrator writes `spec.json` and starts the stage with its path. The stage appends to `events.jsonl` beside it
while it runs, and ends with `error.json` there, or with `record/result.json` in its output folder.
"""

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from stages.harness.json_files import write_json


class Document(BaseModel):
    """A JSON document as a model: strict types, immutable; a field that this version does not know is kept as it is."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, serialize_by_alias=True)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The document in a file; None where the file cannot be read or holds no such document."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the fields that were given or read, in the order in which the class lists them."""
        return self.model_dump(exclude_unset=True)

    def write(self, file: Path) -> None:
        """Write the document: a reader sees the old file or the new one, never half of it."""
        write_json(file, self.to_json())


class Machine(Document):
    """How a stage's process should run, from the pipeline's `execution:` section. Never changes the result."""

    device: str
    """`cpu` or `cuda`; the orchestrator has resolved `auto`."""
    threads_given: int | None = Field(alias="threads")
    """CPU threads of one process; None for a Slurm job, whose script counts the cores of its node."""
    deterministic: bool = False
    """Whether torch has to refuse an operation whose result may not come back bit for bit."""
    data_dir: str | None = None
    """Folder with local copies of datasets; None reads them from the hub."""

    @property
    def threads(self) -> int:
        """CPU threads of one process, for a Slurm job as its script has exported them."""
        return self.threads_given or int(os.environ["OMP_NUM_THREADS"])


class Spec(Document):
    """`spec.json`: everything that a stage's process is told."""

    stage: str
    """The stage program: the process runs `python -m stages.STAGE`."""
    settings: dict[str, Any]
    """The stage's settings, which its settings class validates."""
    inputs: dict[str, str]
    """Name of an input -> folder of the upstream artifact."""
    seed: int
    """The pipeline's seed."""
    machine: Machine
    libraries: list[str] = []
    """Distributions that the stage computes with, whose versions its result is to name."""
    details: dict[str, Any] = {}
    """Facts that are no settings and enter no key, such as the hub's commits."""
    output: str = ""
    """Folder for the payload. The launcher fills in this and the next two fields."""
    state: str = ""
    """Folder that outlives an interrupted attempt, for what a resume needs."""
    parent: int | None = None
    """Process id of the orchestrator, with which the stage dies; None where that runs on another machine."""


class StageResult(Document):
    """`record/result.json`: what a finished stage has to show."""

    proof: dict[str, Any]
    """Shows that the work was done; a result without a proof counts as a failure."""
    metrics: dict[str, Any] = {}
    """What goes to the manifest and the report."""
    python: str = ""
    """The interpreter that ran it."""
    versions: dict[str, str] = {}
    """Python's version, and those of `Spec.libraries`, with their build tags, as they were when the process began."""
    peak_memory_gib: float = 0.0
    """The most resident memory that the largest of its processes had, in GiB; 0 where that is not known."""


class ErrorDocument(Document):
    """`error.json`: why a stage failed."""

    message: str
    fix: str
    """What to do about it; empty for an unforeseen error."""
    cause: str = ""
    """`memory`, `network` or `engine` (it died) for a failure that another attempt may not meet, else empty."""


class Note(Document):
    """An event: one line for the person who watches the run."""

    time: float = Field(default_factory=time.time)
    event: Literal["note"] = "note"
    message: str


class Progress(Document):
    """An event: how far the stage has come."""

    time: float = Field(default_factory=time.time)
    event: Literal["progress"] = "progress"
    phase: str
    """What the steps are steps of, such as `sft`."""
    step: int
    total: int | None = None
    """Steps of the whole phase; None where their number is not known."""
    metrics: dict[str, bool | int | float | str] = {}

    @property
    def count(self) -> str:
        """`131/400`, or `131` where the total is not known; empty where a phase of unknown length begins."""
        return f"{self.step}/{self.total}" if self.total else str(self.step or "")


Event = Annotated[Note | Progress, Field(discriminator="event")]
EVENT: TypeAdapter[Note | Progress] = TypeAdapter(Event)
"""Reads one line of `events.jsonl`."""
