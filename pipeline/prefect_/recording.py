"""What a run says about itself to those who show it. A run tells, and never waits for who listens.

Events are small JSON objects: `kind` says what happened, `stage` to which stage (None: to the run). The methods of a
View are kinds with their argument as `value`; around them stand `begin`, and `done` (its outcome) or `failed` (why).
`emit` is an event for automations, with the arguments of `emit` (telling.py) but the pipeline's name; `gate` is a gate
that was judged, with its verdict and the lines of its checks. The run's last event is `end`. Before all comes what
`beginning` returns.
"""

import time
from collections.abc import Callable
from typing import Any

from pipeline.core.errors import Interrupted
from pipeline.core.signals import asked_to_stop
from pipeline.plan.graph import Stage
from pipeline.run.documents import GateVerdict
from pipeline.run.execute import Executor, StageOutcome
from pipeline.run.gates.gate import line, whole
from pipeline.run.session import Session
from pipeline.run.view import View
from stages.harness.documents import Note, Progress

EVENTS = "events.jsonl"
"""In the run's folder, as long as Prefect has not got all of it."""
PROGRESS_EVERY_S = 1.0
Event = dict[str, Any]
Write = Callable[[Event], None]


class RecordedView(View):
    """Shows a stage where `inner` shows it, and writes the same down."""

    def __init__(self, inner: View, stage: str, write: Write) -> None:
        self.inner, self.stage, self._write = inner, stage, write
        self._last = 0.0

    def tell(self, kind: str, value: Any = None) -> None:
        """Write one event of this stage down."""
        self._write({"stage": self.stage, "kind": kind, "value": value})

    def line(self, text: str) -> None:
        self.inner.line(text)
        self.tell("line", text)

    def started(self, stage: str, log: str) -> None:
        self.inner.started(stage, log)
        self.tell("started", log)

    def event(self, stage: str, event: Note | Progress) -> None:
        self.inner.event(stage, event)
        over = isinstance(event, Note) or event.step == event.total
        if over or time.monotonic() - self._last >= PROGRESS_EVERY_S:
            self._last = time.monotonic()
            self.tell("event", event.model_dump(mode="json"))

    def ended(self, stage: str, text: str) -> None:
        self.inner.ended(stage, text)
        self.tell("ended", text)


def beginning(session: Session) -> Event:
    """What a flow has to know of a run beforehand, as JSON."""
    data, config, options = session.record.data, session.config, session.options
    return {
        "title": f"{data.id}: {data.command}",
        "name": config.name,
        "notify": config.execution.notify,
        "notify_on": config.execution.notify_on,
        "run": data.id,
        "folder": str(session.record.folder),
        "tags": config.tags,
        "parameters": {
            "config": str(session.path),
            "overrides": list(session.overrides),
            "force": list(options.force),
            "start": options.start,
            "only": options.only,
            "until": options.until,
            "triggers": ",".join(options.triggers),
        },
    }


def run_and_tell(session: Session, write: Write) -> None:
    """Run every stage of a session and finish it, and write down what happens. Raises what ends the run."""

    def emit(event: str, **about: Any) -> None:
        write({"stage": None, "kind": "emit", "value": {"event": event, **about}})

    def show_gate(checkpoint: str, verdicts: list[GateVerdict]) -> None:
        name = f"gate after {checkpoint}" if checkpoint else "gate at the end"
        lines = [[one.verdict, f"{one.benchmark}, {one.checkpoint}: {line(one)}"] for one in verdicts]
        write({"stage": None, "kind": "gate", "value": {"name": name, "verdict": whole(verdicts), "lines": lines}})

    def ensure(executor: Executor, stage: Stage) -> StageOutcome:
        return _shown(executor.view, stage, write, lambda view: executor.ensure(stage, view))

    session.emit, session.show_gate, session.ensure = emit, show_gate, ensure

    def run_stage(stage: Stage) -> None:
        outcome = _shown(session.executor.view, stage, write, lambda view: session.run_stage(stage, view))
        if stage.kind.makes_checkpoint:
            told = {"key": outcome.artifact.key, "model": str(outcome.artifact.folder / "model")}
            emit("vcore.checkpoint.ready", checkpoint=stage.name, state=outcome.state, payload=told)

    end: Event = {"stage": None, "kind": "end"}
    try:
        session.run_stages(run_stage)
        session.finish()
        for moved in session.record.data.moved or ():
            if not moved.reason:
                about = {"checkpoint": moved.checkpoint, "benchmark": moved.benchmark}
                emit("vcore.score.moved", **about, payload=moved.to_json())
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt) or asked_to_stop()
        write({**end, "value": {"status": "interrupted" if stopped else "failed", "message": _reason(error)}})
        raise
    report = session.report_folder
    value = {
        "status": "done",
        "message": session.summary(),
        "cached": session.nothing_ran,
        "report": str(report) if report is not None else None,
        "record": session.record.data.to_json(),
    }
    write({**end, "value": value})


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _shown(inner: View, stage: Stage, write: Write, run: Callable[[RecordedView], StageOutcome]) -> StageOutcome:
    """Run a stage, and write down how it begins and ends."""
    view = RecordedView(inner, stage.name, write)
    view.tell("begin")
    try:
        outcome = run(view)
    except BaseException as error:
        view.tell("failed", _reason(error))
        raise
    view.tell("done", outcome.as_json())
    return outcome
