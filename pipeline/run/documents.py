"""What is written about a run: its record, `run.json`, and what is read back from an earlier run's report."""

from pydantic import ConfigDict

from pipeline.store.documents import OutsideInput
from stages.harness.documents import Document


class PlannedEntry(Document):
    """One stage of a run's plan, as `vcore plan --json` shows it."""

    stage: str = ""
    state: str = ""  # HIT, RUN, RESUME or WAIT
    reason: str = ""
    key: str | None  # None while it waits for an input
    last_seconds: float | None = None
    folder: str | None = None  # of the artifact that the plan names for the stage


class StageEntry(Document):
    """One stage of a run that has its artifact."""

    name: str
    key: str
    state: str  # `ran` or `cached`
    seconds: float = 0.0  # of its computation, whenever that was
    peak_memory_gib: float = 0.0  # the most resident memory that its largest process had; 0 where not known
    accepted: str = ""  # what differs from what was asked for, where `--rerun-triggers` let it pass
    folder: str = ""  # of its artifact


class MovedScore(Document):
    """A score that left the 95 % interval that it had in the run before, or that another protocol measured."""

    benchmark: str
    checkpoint: str
    before: float
    low: float  # bounds of the earlier interval
    high: float
    after: float
    protocol_changed: bool


class RunRecordDocument(Document):
    """`run.json`: what a run was asked for, and what came of it. Times are ISO 8601 in UTC."""

    model_config = ConfigDict(frozen=False)

    id: str  # name of the run's folder: time of its start, and the pipeline
    name: str  # of the pipeline
    command: str
    pid: int = 0
    host: str = ""
    started: str
    ended: str | None = None
    status: str  # `running`, `done`, `failed` or `interrupted`; read back also `killed`
    error: str | None = None
    plan: list[PlannedEntry]
    stages: list[StageEntry]
    outside: dict[str, OutsideInput] = {}  # what the stages read from outside the store, by its label
    predecessor: str | None = None  # the run that this one's scores were compared with
    moved: list[MovedScore] | None = None  # the result of that comparison; None before it


class RecordedScore(Document):
    """One result of a report.json, as far as runs are compared by it."""

    benchmark: str
    checkpoint: str
    value: float
    low: float
    high: float
    protocol: str


class ScoredReport(Document):
    """A report.json, as far as runs are compared by it."""

    seed: int
    results: list[RecordedScore]
