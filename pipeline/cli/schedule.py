"""`vcore serve` and `vcore deploy`: a pipeline on a schedule."""

import datetime
from pathlib import Path
from typing import Annotated, Any

from pipeline.cli.options import ConfigFile, Overrides, option
from pipeline.cli.printing import show
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import ConfigError
from pipeline.prefect_.turn import Missed, Overlap

Cron = Annotated[str | None, option("--cron", 'When to run: "0 2 * * *" is every night at two.', metavar="LINE")]
Timezone = Annotated[str | None, option("--timezone", "Time zone of --cron: Europe/Berlin. Default: UTC.")]
Name = Annotated[str | None, option("--name", "Name of the deployment. Default: the config's name.")]
_OVERLAP = "A scheduled run while another one goes on: `skip` it, or `queue` every run behind the one before it."
_MISSED = "Scheduled runs that could not begin when they were due: `skip` them, or `catch_up_once`, with the newest."
OverlapChoice = Annotated[Overlap, option("--overlap", _OVERLAP)]
MissedChoice = Annotated[Missed, option("--missed", _MISSED)]
Port = Annotated[
    int, option("--port", "Port of the Prefect server that is started where none is set up.", min=1, max=65535)
]
Pool = Annotated[str, option("--pool", "The work pool, of type process, whose worker runs it.")]
_OVERLAPPING = {
    "skip": "A scheduled run is skipped while another one goes on",
    "queue": "A run waits for the one before it",
}
_MISSING = {
    "skip": "what could not begin when due is skipped",
    "catch_up_once": "of what could not begin when due, the newest run begins, once",
}


def serve(
    config: ConfigFile,
    overrides: Overrides = None,
    cron: Cron = None,
    timezone: Timezone = None,
    overlap: OverlapChoice = "skip",
    missed: MissedChoice = "catch_up_once",
    name: Name = None,
    port: Port = 4200,
) -> None:
    """Run a pipeline on a schedule from this process, until it is stopped. Starts a Prefect server with its UI where
    none is set up."""
    settings, parameters, schedule = _prepared(config, overrides or [], cron, timezone)
    parameters |= {"overlap": overlap, "missed": missed}
    from pipeline.prefect_.schedule import serve as serve_flow
    from pipeline.prefect_.server import running_server

    name = name or settings.name
    with running_server(port, show) as address:
        next_on, *more = _when(schedule, overlap, missed)
        show("\n".join([f"[bold]{name}[/]: {next_on}; server {address}; stop with Ctrl-C", *more]))
        serve_flow(name, settings, parameters, schedule)


def deploy(
    config: ConfigFile,
    overrides: Overrides = None,
    cron: Cron = None,
    timezone: Timezone = None,
    overlap: OverlapChoice = "skip",
    missed: MissedChoice = "catch_up_once",
    name: Name = None,
    pool: Pool = "vcore",
) -> None:
    """Register a pipeline as a deployment on the Prefect server, to be run by a worker on a schedule or on demand."""
    settings, parameters, schedule = _prepared(config, overrides or [], cron, timezone)
    parameters |= {"overlap": overlap, "missed": missed}
    from prefect.settings import get_current_settings

    from pipeline.prefect_.schedule import deploy as deploy_flow
    from pipeline.prefect_.server import unreachable_as_error

    if get_current_settings().api.url is None:
        fix = "Start one (prefect server start) and set PREFECT_API_URL, or use `vcore serve`, which brings its own."
        raise ConfigError("a deployment needs a Prefect server, and none is set up", where="PREFECT_API_URL", fix=fix)
    with unreachable_as_error():
        full_name = deploy_flow(name or settings.name, settings, parameters, schedule, pool)
    next_on, *more = _when(schedule, overlap, missed)
    show("\n".join([f"[bold]{full_name}[/] on the work pool {pool}: {next_on}", *more]))
    show(f"Its worker:  prefect worker start --pool {pool}\nRun it now:  prefect deployment run {full_name}")


def _prepared(
    path: Path, overrides: list[str], cron: str | None, timezone: str | None
) -> tuple[PipelineConfig, dict[str, Any], Any]:
    """The config, checked now, the flow's parameters and its schedule.

    Every path in the parameters is made absolute, since the flow runs in another folder.
    """
    if timezone is not None and cron is None:
        raise ConfigError("is the zone of a schedule, and there is no --cron", where="--timezone")
    settings = load_config(path, overrides)
    from pipeline.prefect_.server import prepare_environment

    prepare_environment(settings.home_folder)
    from pipeline.prefect_.schedule import cron_schedule

    absolute = [f"home={settings.home_folder.resolve()}"]
    if settings.data_folder is not None:
        absolute.append(f"data_dir={settings.data_folder.resolve()}")
    if settings.model.startswith((".", "~")) or Path(settings.model).exists():
        absolute.append(f"model={Path(settings.model).expanduser().resolve()}")
    parameters = {"config": str(path.resolve()), "overrides": [*overrides, *absolute]}
    return settings, parameters, cron_schedule(cron, timezone or "UTC") if cron is not None else None


def _when(schedule: Any, overlap: str, missed: str) -> list[str]:
    """When the next runs are; what happens when the clocks change; and what happens to runs that overlap."""
    if schedule is None:
        return ["on demand"]
    from pipeline.prefect_.clock import at_clock_changes, next_times

    *times, last = [f"{time:%a %d %b %Y %H:%M}" for time in next_times(schedule)]
    next_on = f"cron {schedule.cron} ({schedule.timezone}), next on {', '.join(times)} and {last}"
    clocks = at_clock_changes(schedule, datetime.datetime.now(datetime.UTC))
    return [next_on, *(f"{said}." for said in clocks), f"{_OVERLAPPING[overlap]}; {_MISSING[missed]}."]
