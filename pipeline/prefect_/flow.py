"""The Prefect flow: the pipeline's stages as tasks.

Prefect gives states, logs, schedules and a UI; the artifact store alone decides what is computed, and a run waits for
no server. So the flow follows a run by what the run tells (recording.py): that of `vcore run` in a process of its own
(recorder.py); that of `vcore serve`, or of a worker for `vcore deploy`, beside a thread that runs the stages. A retry,
from wherever, continues where the last attempt ended.
"""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger, runtime, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed

from pipeline.config.schema import load_config
from pipeline.core.digests import digest
from pipeline.core.errors import ConfigError, Interrupted, StoreError, UserError
from pipeline.export.after_run import exported
from pipeline.plan.decide import Options, parse_triggers
from pipeline.prefect_.client import SERVER_ERRORS, CancelWatch, start_thread, tag_flow_run
from pipeline.prefect_.internals import stops_as_interrupts
from pipeline.prefect_.recording import Event, beginning, run_and_tell
from pipeline.prefect_.telling import emit, notifier, show_alerts, tell_end, tell_refusal
from pipeline.prefect_.turn import SKIPPED, Missed, Overlap, turn
from pipeline.prefect_.view import PrefectView, show_history, show_report
from pipeline.run.documents import RunRecordDocument
from pipeline.run.session import Session
from pipeline.run.view import View
from pipeline.store.store import Store
from stages.harness.documents import EVENT


def run_name() -> str:
    """`vcore/CONFIG/SHORT_KEY`: the same settings have the same short key."""
    parameters = runtime.flow_run.parameters
    path = Path(parameters["config"])
    try:
        config = load_config(path, list(parameters.get("overrides") or ()))
    except UserError:
        return f"vcore/{path.stem}/invalid"  # the run itself will say why
    return f"vcore/{config.name}/{digest(config.identity_settings())[:8]}"


_flow = functools.partial(
    flow, name="vcore", flow_run_name=run_name, persist_result=False, validate_parameters=False, retries=0
)


@_flow
def vcore(
    config: str,
    overrides: Sequence[str] = (),
    force: Sequence[str] = (),
    start: str | None = None,
    only: str | None = None,
    until: str | None = None,
    triggers: str | None = None,
    overlap: Overlap = "skip",
    missed: Missed = "catch_up_once",
) -> State[Any]:
    """Run a pipeline: every stage that is not cached, in order.

    Args:
        config: the pipeline's YAML file.
        overrides: `KEY=VALUE`, as `--set` takes them.
        force, start, only, until, triggers: as `vcore run --force --from --only --until --rerun-triggers`.
        overlap, missed: what becomes of a scheduled run while another one goes on, or after its time (turn.py).
    """
    path = Path(config)
    with stops_as_interrupts(), contextlib.ExitStack() as ours:
        try:
            options = Options(tuple(force), start, only, until, parse_triggers(triggers))
            home = Store(load_config(path, list(overrides)).home_folder).home
            skipped = ours.enter_context(turn(home, overlap, missed))
            if skipped is not None:
                return Cancelled(name=SKIPPED, message=skipped)
            session = Session.prepare(path, list(overrides), options, View())
        except (ConfigError, StoreError) as error:
            tell_refusal(path, overrides, error)
            raise
        return run_here(session)


def run_here(session: Session) -> State[Any]:
    """Run a session in this process and show it in the flow run that is going on; returns the state it ends in."""
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with exported(session), session.recorded():
                run_and_tell(session, events.put)
        except BaseException as error:  # noqa: BLE001 - raised on by the flow
            errors.append(error)
        finally:
            events.put(None)

    stop = session.executor.stopping.set
    worker = start_thread("run", work)
    try:
        with tags(*session.config.tags), stops_as_interrupts():
            state = follow(iter(events.get, None), beginning(session), stop)
    except (Interrupted, ConfigError):
        stop()
        raise
    finally:
        worker.join()
    if errors and not state.is_cancelled():
        raise errors[0]
    if session.report_folder is not None and state.is_completed():
        try:
            show_history(session.store.home, session.config.name)
        except (UserError, *SERVER_ERRORS) as error:  # the run itself is done
            get_run_logger().warning("the server has no history of scores: %s", error)
    return state


def flow_of(events: Iterable[Event], begin: Event, stop: Callable[[], None]) -> Flow[..., State[Any]]:
    """The same flow for a run in another process, to be called with the parameters in `begin`."""

    @functools.wraps(vcore.fn)
    def followed(*args: Any, **kwargs: Any) -> State[Any]:
        return follow(events, begin, stop)

    return _flow(followed)


def follow(events: Iterable[Event], begin: Event, stop: Callable[[], None]) -> State[Any]:
    """Show a run's stages as tasks as its events come, until its last one; returns the state that the flow ends in.

    Args:
        events: of one run (recording.py). Where they end without `end`, the run was killed.
        begin: from `beginning`.
        stop: is called when the flow run is cancelled in the UI.
    """
    logger = get_run_logger()
    logger.info(begin["title"])
    tag_flow_run(begin["tags"])
    block = notifier(begin["notify"])
    shown: dict[str, tuple[queue.SimpleQueue[Event], threading.Thread]] = {}
    gates: list[threading.Thread] = []
    end: Event = {"status": "killed", "message": "the run was killed"}
    watch = CancelWatch(runtime.flow_run.id, stop)
    with watch.watching():
        for event in events:
            if event["kind"] == "end":
                end = event["value"]
            elif event["kind"] == "emit":
                emit(config=begin["name"], **event["value"])
            elif event["kind"] == "gate":
                gates.append(start_thread("gate", functools.partial(_as_gate, event["value"])))
            elif event["kind"] == "begin":
                own: queue.SimpleQueue[Event] = queue.SimpleQueue()
                shown[event["stage"]] = own, start_thread("task", functools.partial(_as_task, event["stage"], own))
            else:
                shown[event["stage"]][0].put(event)
        for own, thread in shown.values():
            own.put({"kind": "failed", "value": end["message"]})  # read only where a stage was left without an end
            thread.join()
        for thread in gates:
            thread.join()
    tell_end(begin, end, block)
    if end["status"] == "interrupted":
        return Cancelled(message="cancelled; what was computed is kept, and the next run continues")
    if end["status"] != "done":
        return (Failed if end["status"] == "failed" else Crashed)(message=end["message"])
    try:
        if end["report"] is not None:
            show_report(begin["name"], Path(end["report"]), Path(begin["folder"]) / "report.html")
        told = block if "moved" in begin["notify_on"] else None
        show_alerts(begin["name"], begin["notify"], RunRecordDocument.model_validate(end["record"]), told)
    except SERVER_ERRORS as error:
        logger.warning("the server took no report (%s); it is in %s", type(error).__name__, begin["folder"])
    return Completed(message=end["message"], name="Cached" if end["cached"] else "Completed")


def _as_task(stage: str, events: queue.SimpleQueue[Event]) -> None:
    """Show one stage as a task, until its last event."""

    @task(name=stage, task_run_name=stage, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def run_stage() -> State[Any]:
        view = PrefectView(stage)
        while True:
            event = events.get()
            kind, value = event["kind"], event["value"]
            if kind == "done":
                name = "Cached" if value["state"] == "cached" else "Completed"
                return Completed(name=name, message=f"{value['state']} {value['key'][:12]}", data=value)
            if kind == "failed":
                return Failed(message=value)
            if kind == "line":
                view.line(value)
            elif kind == "event":
                view.event(stage, EVENT.validate_python(value))
            else:
                getattr(view, kind)(stage, value)

    run_stage(return_state=True)


def _as_gate(gate: Event) -> None:
    """Show a gate that was judged as a task: *Passed*, *Undecided* or *Failed*, with a log line for each check."""

    @task(name="gate", task_run_name=gate["name"], cache_policy=NO_CACHE, persist_result=False, retries=0)
    def judge() -> State[Any]:
        for verdict, text in gate["lines"]:
            (get_run_logger().info if verdict == "PASS" else get_run_logger().warning)("%s %s", verdict, text)
        counted = [text for verdict, text in gate["lines"] if verdict == gate["verdict"]]
        message = "; ".join(counted)
        if gate["verdict"] == "FAIL":
            return Failed(message=message)
        return Completed(name="Passed" if gate["verdict"] == "PASS" else "Undecided", message=message)

    judge(return_state=True)
