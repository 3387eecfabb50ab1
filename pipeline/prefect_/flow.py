"""The Prefect flow: the pipeline's stages as tasks, in running order.

Prefect gives states, logs, schedules and a UI; the artifact store alone decides what is computed (every task has
NO_CACHE, and what runs is a process of its own). The same flow is what `vcore run` runs, what `vcore serve` runs on a
schedule, and what a worker runs for `vcore deploy`: a retry, from wherever, continues where the last attempt ended.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger, runtime, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from pipeline.config.schema import load_config
from pipeline.core.digests import digest
from pipeline.core.errors import Interrupted, UserError
from pipeline.plan.decide import Options, parse_triggers
from pipeline.plan.graph import Stage
from pipeline.prefect_.client import SERVER_ERRORS, CancelWatch, tag_flow_run
from pipeline.prefect_.internals import stops_as_interrupts
from pipeline.prefect_.view import PrefectView, notifier, show_alerts, show_report
from pipeline.run.session import Session
from pipeline.run.view import View


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
) -> State[Any]:
    """Run a pipeline: every stage that is not cached, in order.

    Args:
        config: the pipeline's YAML file.
        overrides: `KEY=VALUE`, as `--set` takes them.
        force, start, only, until, triggers: as `vcore run --force --from --only --until --rerun-triggers`.
    """
    options = Options(tuple(force), start, only, until, parse_triggers(triggers))
    session = Session.prepare(Path(config), list(overrides), options, View())
    with session.recorded(), stops_as_interrupts():
        return run_as_flow(session, [])


def flow_of(session: Session, errors: list[BaseException]) -> Flow[..., State[Any]]:
    """The same flow around a session that is prepared, and recorded, by the caller.

    Args:
        errors: gets what ended a stage, for the caller: Prefect hands on a state instead.
    """

    @functools.wraps(vcore.fn)
    def prepared(*args: Any, **kwargs: Any) -> State[Any]:
        return run_as_flow(session, errors)

    return _flow(prepared)


def run_as_flow(session: Session, errors: list[BaseException]) -> State[Any]:
    """Run the stages of a prepared session as tasks, in order; returns the state that the flow ends in."""
    logger = get_run_logger()
    logger.info("%s: %s", session.record.data.id, session.record.data.command)
    tag_flow_run(session.config.tags)
    watch = CancelWatch(runtime.flow_run.id, session.executor.stopping)
    try:
        with tags(*session.config.tags):
            block = notifier(session.config.execution.notify)  # not found out when all is done
            with watch.watching():
                session.run_stages(lambda stage: _as_task(session, stage, errors))
            session.finish()
    except Interrupted:
        if watch.cancelled:
            return Cancelled(message="cancelled; what was computed is kept, and the next run continues")
        raise
    try:
        if session.report_folder is not None:
            show_report(session.config.name, session.report_folder, session.record.folder / "report.html")
        show_alerts(session.config, session.record, block)
    except SERVER_ERRORS as error:
        logger.warning("the server took no report (%s); it is in %s", type(error).__name__, session.record.folder)
    return Completed(message=session.summary(), name="Cached" if session.nothing_ran else "Completed")


def _as_task(session: Session, stage: Stage, errors: list[BaseException]) -> None:
    """Run one stage as a task. Raises what ended it, where it failed."""
    ended_by: list[BaseException] = []

    @task(name=stage.name, task_run_name=stage.name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def run_stage() -> State[Any]:
        try:
            outcome = session.run_stage(stage, PrefectView(session.executor.view, stage.name))
        except BaseException as error:
            ended_by.append(error)
            errors.append(error)
            raise
        name = "Cached" if outcome.state == "cached" else "Completed"
        return Completed(name=name, message=f"{outcome.state} {outcome.artifact.key[:12]}", data=outcome.as_json())

    state = run_stage(return_state=True)
    if ended_by:
        raise ended_by[0]
    if not state.is_completed():  # Prefect's own failure
        state.result(raise_on_failure=True)
