"""Whether a run of a deployment begins: what happens to scheduled runs that overlap, and to those that were missed.

Prefect starts whatever is due: everything at once that was missed while no worker ran, and one night's run beside the
last one's that is still going on. So the flow looks first. That a run is going on is a lock in the home, held by the
flow's process: unlike a state on a server it ends with the process, however that ends.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.core.errors import ConfigError
from pipeline.core.locks import open_lock, read_holder, try_lock, wait_for_lock, write_holder

Overlap = Literal["skip", "queue"]
"""`skip`: a scheduled run that finds another run of its deployment going on is skipped. `queue`: each run, whoever
started it, waits for the one before it."""
Missed = Literal["skip", "catch_up_once"]
"""`skip`: a run that could not begin when it was due is skipped. `catch_up_once`: the newest of those runs, once."""
SKIPPED = "Skipped"
"""The state that a skipped run ends in, of type Cancelled."""
LATE = timedelta(minutes=5)
"""A run that begins later than this after its time was missed: a worker looks every 15 seconds, and a machine is
busy."""


@contextlib.contextmanager
def turn(home: Path, overlap: str, missed: str) -> Iterator[str | None]:
    """Wait for the turn of the flow run that is going on among its deployment's runs, and keep it meanwhile.

    Yields None where it may begin, else why it is skipped. A run that somebody or an automation has started, and one
    that is retried, is never skipped. Without a deployment there are no turns.

    Args:
        home: of the store; has its `locks` folder.
        overlap, missed: as `Overlap` and `Missed` say.

    Raises:
        ConfigError: one of the two is none of those.
    """
    for where, given, known in (("overlap", overlap, get_args(Overlap)), ("missed", missed, get_args(Missed))):
        if given not in known:
            raise ConfigError(f"{given!r} is none of {', '.join(known)}", where=where)
    from prefect import get_run_logger, runtime
    from prefect.context import get_run_context

    context: Any = get_run_context()
    run = context.flow_run
    if run.deployment_id is None:
        yield None
        return
    by_schedule = run.auto_scheduled and run.run_count <= 1
    if by_schedule and (reason := _missed(run, missed)):
        yield reason
        return
    with open_lock(home / "locks" / f"deployment.{run.deployment_id}.lock") as lock:
        mine = try_lock(lock)
        if not mine and overlap == "skip" and by_schedule:
            yield f"the run before it is going on: {read_holder(lock) or 'another run'}"
            return
        if not mine and overlap == "queue":
            get_run_logger().info("waits for %s", read_holder(lock) or "another run")
            wait_for_lock(lock)
            mine = True
        if mine:
            write_holder(lock, f"{runtime.flow_run.name}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        yield None


def _missed(run: Any, missed: str) -> str | None:
    """Why a scheduled run counts as missed and is not caught up; None where it begins.

    Whatever the choice, only the newest run that is due begins.
    """
    due, now = run.expected_start_time, datetime.now(UTC)
    newer = _newest_due(run, now)
    if newer is not None:
        return f"missed: it was due at {due:%Y-%m-%d %H:%M} UTC, and a newer run at {newer:%Y-%m-%d %H:%M} UTC"
    if missed == "skip" and now - due > LATE:
        return f"missed: it was due at {due:%Y-%m-%d %H:%M} UTC, and could begin at {now:%Y-%m-%d %H:%M} UTC"
    return None


def _newest_due(run: Any, now: datetime) -> datetime | None:
    """When the newest of the deployment's scheduled runs after this one was due; None where there is none.

    Those that somebody has cancelled do not count.
    """
    from prefect import get_client, get_run_logger
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    from pipeline.prefect_.client import SERVER_ERRORS

    after = run.expected_start_time + timedelta(seconds=1)
    newer = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        expected_start_time=filters.FlowRunFilterExpectedStartTime.model_validate({"after_": after, "before_": now}),
    )
    try:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=newer, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    except SERVER_ERRORS as error:
        get_run_logger().warning("the server did not say what else is due (%s)", type(error).__name__)
        return None
    for other in runs:
        cancelled = other.state_type == "CANCELLED" and other.state_name != SKIPPED
        if other.auto_scheduled and not cancelled and other.expected_start_time is not None:
            return other.expected_start_time
    return None
