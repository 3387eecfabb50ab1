"""A stage's view of its own run: its inputs and folders, its progress, and what it returns or raises at its end.

How a stage is started and ends is in stages/harness/process.py.
"""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any, Generic, TypeVar

from stages.harness.documents import Note, Progress, Spec
from stages.harness.settings import StageSettings

S = TypeVar("S", bound=StageSettings)


class StageError(Exception):
    """A failure a user can act on. `message` says what and where; `fix` says what to do."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class StageStopped(BaseException):
    """Raised where a stage leaves early on request, with its state saved. No `Exception`: nothing may swallow it."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a stage returns. `proof` must show that the work was done; `metrics` go to the manifest and the report."""

    proof: dict[str, Any]
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)


class Context(Generic[S]):
    """A stage's view of its own run.

    Attributes:
        settings: the stage's validated settings.
        inputs: name -> folder of an upstream artifact.
        output: folder for the payload. Everything in it except `record/` is content and enters the artifact's digest.
        record: `output/record`: logs, curves, anything that may differ between two equal results.
        state: folder that survives a stop or a crash and holds what a resume needs; removed after success.
        seed: the pipeline's seed.
        machine: device, threads and data folder.
        details: facts from the orchestrator that are no settings, such as which checkpoint is being sampled.
    """

    def __init__(self, spec: Spec, settings: S, spec_path: Path) -> None:
        self.stage = spec.stage
        self.settings = settings
        self.inputs = {name: Path(folder) for name, folder in spec.inputs.items()}
        self.output = Path(spec.output)
        self.state = Path(spec.state)
        self.seed = spec.seed
        self.machine = spec.machine
        self.details = spec.details
        self.spec_path = spec_path
        self.record = self.output / "record"
        self.stop_requested = False
        self.stops_gracefully = False
        """Set by a stage that polls `stop_requested` and saves its state; others are interrupted where they are."""
        self._events = spec_path.parent / "events.jsonl"
        self._last_progress = 0.0

    @property
    def code_digests(self) -> dict[str, str]:
        """File of the user's own that the stage runs or reads -> the sha256 that its key stands for."""
        return dict(self.details.get("code_digests", {}))

    @property
    def main(self) -> bool:
        """Whether this is the only process of the stage, or the first of several: the one that reports and writes."""
        return is_main_process()

    @property
    def resuming(self) -> bool:
        """Whether an earlier, unfinished attempt left state behind."""
        return any(self.state.iterdir())

    def progress(self, step: int, total: int | None, phase: str, **metrics: float | int | str) -> None:
        """Report progress: `step` of `total` units of `phase`. Writes at most ten a second, and always the last."""
        now = time.monotonic()
        if now - self._last_progress < 0.1 and step != total:
            return
        self._last_progress = now
        self._event(Progress(phase=phase, step=step, total=total, metrics=dict(metrics)))

    def note(self, message: str) -> None:
        """One line for the person who watches the run (a warning, a resume, a count worth knowing)."""
        self._event(Note(message=message))

    def curve(self, step: int, **values: float | int) -> None:
        """Append one point to `record/metrics.jsonl`, the stage's training curve, which the report draws."""
        if not self.main:
            return
        with open(self.record / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def _event(self, event: Note | Progress) -> None:
        if not self.main:
            return
        with open(self._events, "a", encoding="utf-8") as file:
            file.write(json.dumps(event.model_dump()) + "\n")


def is_main_process() -> bool:
    """Whether this is the only process of its stage, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
