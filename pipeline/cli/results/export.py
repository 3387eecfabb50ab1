"""`vcore export`: a run that was, into MLflow, W&B or trackio."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from rich.markup import escape

from pipeline.cli.options import AsJson, Home, argument, option
from pipeline.cli.printing import err, print_json, show
from pipeline.config.export import TRACKERS, Exports, ExportSettings
from pipeline.core.errors import ConfigError
from pipeline.core.signals import stop_on_signals

RECORDED = TypeAdapter(Exports)


def export(
    run: Annotated[str, argument("RUN", "A run's id, its beginning, or `latest`.")] = "latest",
    to: Annotated[str | None, option("--to", "mlflow, wandb or trackio. Default: as the run's config says.")] = None,
    uri: Annotated[str | None, option("--uri", "Of MLflow: http://HOST:5000, sqlite:///mlflow.db, a folder.")] = None,
    experiment: Annotated[str | None, option("--experiment", "Of MLflow. Default: the pipeline's name.")] = None,
    project: Annotated[str | None, option("--project", "Of wandb or trackio. Default: the pipeline's name.")] = None,
    entity: Annotated[str | None, option("--entity", "Of wandb: a team or a user.")] = None,
    mode: Annotated[str | None, option("--mode", "Of wandb: online or offline.")] = None,
    folder: Annotated[str | None, option("--folder", "Of the files of wandb, or of trackio's store.")] = None,
    time_limit: Annotated[float | None, option("--time-limit", "Seconds after which to give up.")] = None,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Send a run's settings, lineage, scores and training curves to a tracker; one that is there is not written twice.

    What is not given is as the run's config has it under `export:`. Keys and passwords come from the environment.
    """
    from pipeline.checks.export import check_exports
    from pipeline.export.after_run import describe
    from pipeline.export.process import ExportFailed, export_run
    from pipeline.run.record import find_run, load_run

    path = find_run(home, run)
    if load_run(path).status == "running":
        raise ConfigError(f"run {path.name} is still going on", fix="It can be exported when it has ended.")
    options: dict[str, Any] = {"uri": uri, "experiment": experiment, "project": project, "entity": entity, "mode": mode}
    options |= {"folder": folder, "time_limit_s": time_limit}
    given = {name: value for name, value in options.items() if value is not None}
    exports = [_with(one, given) for one in _chosen(path, to)]
    check_exports(exports)
    stop_on_signals()
    sent, failed = [], []
    for settings in exports:
        try:
            sent.append(export_run(home, path.name, settings))
        except ExportFailed as error:  # the others may take it
            failed.append(error)
            continue
        for line in sent[-1].trouble:
            err.print(f"[yellow]left out: {escape(line)}[/]", soft_wrap=True)
        if not as_json:
            show(escape(describe(sent[-1])))
    if as_json:
        print_json([one.model_dump(mode="json") for one in sent])
    if failed:
        raise ExportFailed("\n".join(map(str, failed)))


def _chosen(run: Path, to: str | None) -> list[ExportSettings]:
    """The trackers that a run's config names, all or those of one kind; one that it does not name has its defaults."""
    from stages.harness.json_files import read_json

    if to is not None and to not in TRACKERS:
        raise ConfigError(f"there is no tracker {to!r}", where="--to", fix=f"One of: {', '.join(TRACKERS)}")
    try:
        config = read_json(run / "config.json")
        recorded = RECORDED.validate_python(config.get("export") if isinstance(config, dict) else None)
    except (OSError, ValueError):  # of another version, or damaged: then it names none
        recorded = []
    chosen = [one for one in recorded if to in (None, one.to)]
    if to is None and not chosen:
        fix = f"Name one: vcore export {run.name} --to mlflow"
        raise ConfigError(f"the config of run {run.name} names no tracker", where="--to", fix=fix)
    return chosen or [TRACKERS[to or ""]()]


def _with(settings: ExportSettings, given: dict[str, Any]) -> ExportSettings:
    """The settings with what the command line gives."""
    try:
        return type(settings).model_validate(settings.model_dump() | given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).removesuffix("_s").replace("_", "-")
        known = [f"--{name}" for name in type(settings).model_fields if name not in ("to", "report", "time_limit_s")]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"is no option of {settings.to}"
        raise ConfigError(message, where=f"--{name}", fix=f"Options of {settings.to}: {', '.join(known)}") from None
