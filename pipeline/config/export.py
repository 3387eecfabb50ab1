"""The `export:` section of a config: the trackers that a run goes to when it has ended. None of it enters a key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from stages.harness.settings import StageSettings, execution

_SECRET = re.compile(r"[?&;](?:password|passwd|pwd|token|secret|api_?key)=", re.IGNORECASE)


def _without_secrets(uri: str) -> str:
    """A config is kept in every run's record, and in its report."""
    try:
        password = urlsplit(uri).password
    except ValueError:  # no address that could be taken apart; the tracker will say what it thinks of it
        password = None
    if password is not None or _SECRET.search(uri):
        fix = "leave it out, and set MLFLOW_TRACKING_URI to the whole address, or MLFLOW_TRACKING_PASSWORD"
        raise ValueError(f"an address with a password would be written into every record; {fix}")
    return uri


class _Export(StageSettings):
    report: bool = execution(True)
    """Whether report.md and report.html go along, where they are small."""
    time_limit_s: float = execution(300.0, gt=0)
    """Seconds after which a tracker that does not answer is given up. The run is over by then and loses nothing."""


class MlflowExport(_Export):
    """To an MLflow server or database, or a folder of an older one."""

    to: Literal["mlflow"] = execution("mlflow")
    uri: Annotated[str, AfterValidator(_without_secrets)] | None = execution(None, min_length=1)
    """`http://HOST:5000`, `sqlite:///mlflow.db`, a folder. None: MLFLOW_TRACKING_URI, or else MLflow's own default."""
    experiment: str | None = execution(None, min_length=1)
    """None: MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, or else the pipeline's name."""


class WandbExport(_Export):
    """To Weights & Biases. The key is WANDB_API_KEY, or what `wandb login` has kept."""

    to: Literal["wandb"] = execution("wandb")
    project: str | None = execution(None, pattern=r"^[^/\\#?%:]{1,128}$")
    """None: WANDB_PROJECT, or else the pipeline's name."""
    entity: str | None = execution(None, min_length=1)
    """A team or a user. None: WANDB_ENTITY, or else that of the key."""
    mode: Literal["online", "offline"] | None = execution(None)
    """`offline` writes a folder for `wandb sync`. None: WANDB_MODE, or else online."""
    folder: str | None = execution(None, min_length=1)
    """Where `wandb/` is made. None: WANDB_DIR, or else the pipeline's home."""


class TrackioExport(_Export):
    """To the local store of trackio; `trackio sync` takes it to a Space."""

    to: Literal["trackio"] = execution("trackio")
    project: str | None = execution(None, min_length=1)
    """None: the pipeline's name."""
    folder: str | None = execution(None, min_length=1)
    """Of the store. None: TRACKIO_DIR, or else trackio's own."""


ExportSettings = Annotated[MlflowExport | WandbExport | TrackioExport, Field(discriminator="to")]
"""One tracker."""
TRACKERS: dict[str, type[MlflowExport | WandbExport | TrackioExport]] = {
    "mlflow": MlflowExport,
    "wandb": WandbExport,
    "trackio": TrackioExport,
}


def _one_or_several(value: Any) -> Any:
    if isinstance(value, str):  # `export: mlflow`
        value = {"to": value}
    return [] if value is None else [value] if isinstance(value, dict) else value


def _each_once(exports: list[ExportSettings]) -> list[ExportSettings]:
    for index, one in enumerate(exports):
        if one in exports[:index]:
            raise ValueError(f"{one.to} is listed twice with the same settings")
    return exports


Exports = Annotated[list[ExportSettings], BeforeValidator(_one_or_several), AfterValidator(_each_once)]
"""Trackers, written as a name, as one mapping, or as a list of mappings."""
