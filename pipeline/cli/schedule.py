"""`vcore serve` and `vcore deploy`: a pipeline on a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.common import ConfigFile, Overrides, out
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import ConfigError

Cron = Annotated[
    str | None, typer.Option("--cron", metavar="LINE", help='When to run: "0 2 * * *" is every night at two.')
]
Timezone = Annotated[str, typer.Option("--timezone", help="Time zone of --cron, for example Europe/Berlin.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the deployment. Default: the config's name.")]


def serve(
    config: ConfigFile,
    overrides: Overrides = None,
    cron: Cron = None,
    timezone: Timezone = "UTC",
    name: Name = None,
    port: Annotated[
        int, typer.Option("--port", help="Port of the Prefect server that is started where none is set up.")
    ] = 4200,
) -> None:
    """Run a pipeline on a schedule from this process, until it is stopped. Starts a Prefect server with its UI where
    none is set up."""
    settings, parameters = _prepared(config, overrides or [])
    from pipeline.prefect_.run import prepare_environment

    prepare_environment(settings.home_folder)
    schedule = _schedule(cron, timezone)
    from pipeline.prefect_.server import running_server

    with running_server(port, lambda text: out.print(text, soft_wrap=True)) as address:
        out.print(
            f"[bold]{name or settings.name}[/]: {_when(cron, timezone)}; server {address}; stop with Ctrl-C",
            soft_wrap=True,
        )
        from pipeline.prefect_.schedule import serve as serve_flow

        serve_flow(name or settings.name, settings, parameters, schedule)


def deploy(
    config: ConfigFile,
    overrides: Overrides = None,
    cron: Cron = None,
    timezone: Timezone = "UTC",
    name: Name = None,
    pool: Annotated[
        str, typer.Option("--pool", help="The work pool, of type process, whose worker runs it.")
    ] = "vcore",
) -> None:
    """Register a pipeline as a deployment on the Prefect server, to be run by a worker on a schedule or on demand."""
    settings, parameters = _prepared(config, overrides or [])
    from pipeline.prefect_.run import prepare_environment

    prepare_environment(settings.home_folder)
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        fix = "Start one (prefect server start) and set PREFECT_API_URL, or use `vcore serve`, which brings its own."
        raise ConfigError("a deployment needs a Prefect server, and none is set up", where="PREFECT_API_URL", fix=fix)
    schedule = _schedule(cron, timezone)
    from pipeline.prefect_.schedule import deploy as deploy_flow
    from pipeline.prefect_.server import unreachable_as_error

    with unreachable_as_error():
        full_name = deploy_flow(name or settings.name, settings, parameters, schedule, pool)
    out.print(f"[bold]{full_name}[/] on the work pool {pool}: {_when(cron, timezone)}", soft_wrap=True)
    out.print(
        f"Its worker:  prefect worker start --pool {pool}\nRun it now:  prefect deployment run {full_name}",
        soft_wrap=True,
    )


def _prepared(path: Path, overrides: list[str]) -> tuple[PipelineConfig, dict[str, Any]]:
    """The config, checked now, and the flow's parameters with every path that must be found from anywhere made
    absolute."""
    settings = load_config(path, overrides)
    absolute = [f"home={settings.home_folder.resolve()}"]
    if settings.data_folder is not None:
        absolute.append(f"data_dir={settings.data_folder.resolve()}")
    if settings.model.startswith((".", "~")) or Path(settings.model).is_dir():
        absolute.append(f"model={Path(settings.model).expanduser().resolve()}")
    return settings, {"config": str(path.resolve()), "overrides": [*overrides, *absolute]}


def _schedule(cron: str | None, timezone: str) -> Any:
    from pipeline.prefect_.schedule import cron_schedule

    return cron_schedule(cron, timezone) if cron is not None else None


def _when(cron: str | None, timezone: str) -> str:
    return f"cron {cron} ({timezone})" if cron is not None else "on demand"
