"""Putting a pipeline on a schedule: served by this process, or deployed to a work pool that a worker serves."""

import re
from typing import Any
from zoneinfo import ZoneInfo

from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.shipped import ROOT
from pipeline.prefect_.clock import next_times
from pipeline.prefect_.flow import vcore

RANDOM = re.compile(r"\b[rh]\b", re.IGNORECASE)
PROCESSES = 4
"""Runs that `vcore serve` starts at once, each in a process: beside one that computes, others begin to be skipped or to
wait (turn.py), but not a whole week of missed ones together."""
ENTRYPOINT = "pipeline/prefect_/flow.py:vcore"


def cron_schedule(cron: str, timezone: str) -> CronSchedule:
    """The schedule. Raises `ConfigError` for a time zone that is none, and a cron line that is none or names no day
    there is.

    A line has five fields, or is a name such as @daily. Prefect would take a sixth and a seventh as seconds and year,
    where other schedulers read seconds first; and R, a random time, which it draws anew whenever it looks at the
    schedule: several runs a night.
    """
    try:
        if timezone == "localtime":  # another one on each machine that reads the schedule
            raise ValueError(timezone)
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:  # OSError: a folder of zones, such as Europe
        fix = "For example Europe/Berlin, or UTC."
        raise ConfigError(f"there is no time zone {timezone!r}", where="--timezone", fix=fix) from error
    fix = 'Minute, hour, day, month, weekday: --cron "0 2 * * *" is every night at two.'
    fields = len(cron.split())
    if fields != 5 and not (fields == 1 and cron.strip().startswith("@")):
        message = f"{cron!r} has {fields} field{'' if fields == 1 else 's'}, and a cron line has five"
        raise ConfigError(message, where="--cron", fix=f"{fix} It has no seconds and no year.")
    if RANDOM.search(cron):
        message = f"{cron!r} has a random time, which is drawn again whenever the schedule is read"
        raise ConfigError(message, where="--cron", fix=fix)
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        raise ConfigError(f"{cron!r} is no cron line", where="--cron", fix=fix) from error
    try:
        next_times(schedule)
    except ValueError as error:
        raise ConfigError(f"{cron!r} names no time that ever comes", where="--cron", fix=fix) from error
    return schedule


def serve(name: str, config: PipelineConfig, parameters: dict[str, Any], schedule: CronSchedule | None) -> None:
    """Run the pipeline on schedule from this process until it is stopped.

    The schedule is not paused when this process stops: what is due meanwhile has been missed, and is treated so.
    """
    deployment = _deployment(name, config, parameters, schedule)
    vcore.serve(**deployment, limit=PROCESSES, pause_on_shutdown=False, print_starting_message=False)


def deploy(
    name: str, config: PipelineConfig, parameters: dict[str, Any], schedule: CronSchedule | None, pool: str
) -> str:
    """Register a deployment on a work pool; returns its full name. Raises `ConfigError` where there is no such pool."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound as error:
            fix = f"Make it: prefect work-pool create --type process {pool}"
            raise ConfigError(f"the server has no work pool {pool!r}", where="--pool", fix=fix) from error
    flow: Any = vcore.from_source(source=str(ROOT), entrypoint=ENTRYPOINT)
    quiet = {"build": False, "push": False, "print_next_steps": False, "ignore_warnings": True}
    flow.deploy(**_deployment(name, config, parameters, schedule), work_pool_name=pool, **quiet)
    return f"{vcore.name}/{name}"


def _deployment(
    name: str, config: PipelineConfig, parameters: dict[str, Any], schedule: CronSchedule | None
) -> dict[str, Any]:
    return {
        "name": name,
        "schedules": [schedule] if schedule is not None else [],
        "parameters": parameters,
        "tags": ["vcore", *config.tags],
        "description": f"vcore run {parameters['config']}",
    }
