"""The arguments and options that several commands of `vcore` take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.plan.decide import Options


def argument(metavar: str, help: str) -> Any:
    """A positional argument of a command."""
    return typer.Argument(metavar=metavar, help=help)


def option(flag: str, help: str, **more: Any) -> Any:
    """An option of a command."""
    return typer.Option(flag, help=help, **more)


ConfigFile = Annotated[Path, argument("CONFIG", "A pipeline's YAML file, for example configs/demo.yaml.")]
Overrides = Annotated[
    list[str] | None, option("--set", "Override a setting: --set sft.learning_rate=1e-5", metavar="KEY=VALUE")
]
Force = Annotated[list[str] | None, option("--force", "Compute this stage although it is cached.", metavar="STAGE")]
From = Annotated[str | None, option("--from", "Compute this stage and everything after it.", metavar="STAGE")]
Only = Annotated[str | None, option("--only", "Run this stage alone; what it needs must be cached.", metavar="STAGE")]
Until = Annotated[str | None, option("--until", "Run this stage and what it needs, and stop there.", metavar="STAGE")]
_TRIGGERS = "What makes a stage rerun, of config,inputs,code,versions; what differs only otherwise is accepted."
Triggers = Annotated[str | None, option("--rerun-triggers", f"{_TRIGGERS} Default: all.", metavar="LIST")]
ShowPrompt = Annotated[
    int,
    option(
        "--show-prompt", "Print N prompts of each benchmark as a model gets them, and run nothing.", metavar="N", min=0
    ),
]
AsJson = Annotated[bool, option("--json", "Print JSON for a script.")]
Home = Annotated[Path, option("--home", "Folder of the store and the runs.", envvar="VCORE_HOME")]


def only_one(given: list[str]) -> None:
    """Raises `ConfigError` where several options are given of which each prints something else."""
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other", fix=f"One at a time: {given[0]}")


def options(
    force: list[str] | None, start: str | None, only: str | None, until: str | None, triggers: str | None
) -> Options:
    """The command line's choices of what to run."""
    from pipeline.plan.decide import Options, parse_triggers

    return Options(tuple(force or ()), start, only, until, parse_triggers(triggers))
