"""A run in MLflow, through its client: a server, a database, or a folder of an older one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.config.export import MlflowExport
from pipeline.core.errors import ConfigError
from pipeline.export.content import Content
from pipeline.export.documents import Sent
from pipeline.export.flatten import flatten, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUS = {"done": "FINISHED", "failed": "FAILED"}
"""Of a run -> MLflow's; all others are KILLED."""
UID, COMPLETE = "vcore.uid", "vcore.exported"
"""Tags: which run it is, and when all of it had been written."""
METRICS_A_CALL, OTHERS_A_CALL = 1000, 100
"""The most that the server takes: https://mlflow.org/docs/latest/api_reference/rest-api.html#log-batch"""
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000
"""Characters."""
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")


def send(content: Content, settings: MlflowExport, home: Path) -> Sent:
    """Write a run that is not there yet; one that an earlier attempt left half written is removed and written anew.

    Raises:
        ConfigError: the experiment was deleted, or is not there under the id that the environment names.
        mlflow.exceptions.MlflowException, requests.exceptions.RequestException: the server refuses or does not answer.
    """
    # A run has ended and somebody waits: MLflow's own seven retries take four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is not None and urlsplit(uri).scheme in ("", "file"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it asks whether one means it, and a name is a yes
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment, name = _experiment(client, settings.experiment, content.pipeline)
    found = _find(client, experiment, content.uid)
    run = found or _write(client, experiment, content)
    place = without_secrets(client.tracking_uri).replace("***@", "")
    page = f"{place.rstrip('/')}/#/experiments/{experiment}/runs/{run}" if place.startswith("http") else ""
    state = "there" if found is not None else "exported"
    return Sent(to="mlflow", where=f"{place}, experiment {name}", run=run, url=page, state=state)


def _experiment(client: MlflowClient, name: str | None, pipeline: str) -> tuple[str, str]:
    """Id and name of the experiment, which is made where there is none of that name."""
    from mlflow.exceptions import MlflowException

    identifier = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if name is None and identifier:
        return identifier, client.get_experiment(identifier).name
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or pipeline
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name), name
        except MlflowException as error:  # another home's run has made it meanwhile
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or (found := client.get_experiment_by_name(name)) is None:
                raise
    if found.lifecycle_stage != "active":
        fix = f"Restore it (`mlflow experiments restore --experiment-id {found.experiment_id}`), or name another one."
        raise ConfigError(f"the experiment {name!r} was deleted there", where="export.experiment", fix=fix)
    return found.experiment_id, name


def _find(client: MlflowClient, experiment: str, uid: str) -> str | None:
    """The id of the run that holds all of this one. Half of it, which an earlier attempt left, is removed."""
    complete = None
    for run in client.search_runs([experiment], f"tags.`{UID}` = '{uid}'"):
        if COMPLETE in run.data.tags:
            complete = run.info.run_id
        else:
            client.delete_run(run.info.run_id)
    return complete


def _write(client: MlflowClient, experiment: str, content: Content) -> str:
    from mlflow.entities import Metric, Param, RunTag

    ended = _ms(content.ended.timestamp())
    tags = {f"vcore.{_name(name)}": text[:LONGEST_TAG] for name, text in content.facts.items()}
    tags |= {"mlflow.source.name": content.facts["command"][:LONGEST_TAG], "mlflow.source.type": "LOCAL"}
    if "commit" in content.facts:
        tags["mlflow.source.git.commit"] = content.facts["commit"]
    first = {UID: content.uid}  # found again, whatever becomes of the rest
    started = _ms(content.started.timestamp())
    run: str = client.create_run(experiment, started, first, content.run).info.run_id
    params = [Param(_name(name), _short(text)) for name, text in flatten(content.settings).items()]
    for some in _some(params, OTHERS_A_CALL):
        client.log_batch(run, params=some)
    for some in _some([RunTag(name, text) for name, text in tags.items()], OTHERS_A_CALL):
        client.log_batch(run, tags=some)
    metrics = [Metric(_name(name), value, ended, 0) for name, value in content.metrics.items()]
    for curve in content.curves:
        at = _ms(curve.time.timestamp())
        for step, values in curve.rows:
            metrics += [Metric(_name(f"{curve.stage}/{name}"), value, at, step) for name, value in values.items()]
    for some in _some(metrics, METRICS_A_CALL):
        client.log_batch(run, metrics=some)
    for file in content.files:
        client.log_artifact(run, str(file))
    client.set_terminated(run, STATUS.get(content.status, "KILLED"), ended)
    client.set_tag(run, COMPLETE, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    return run


def _some(items: Sequence[Any], most: int) -> Iterator[list[Any]]:
    left = iter(items)
    while some := list(islice(left, most)):
        yield some


def _name(name: str) -> str:
    """A name that MLflow takes: `pass@4` is `pass_4` there."""
    return _NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME]


def _short(text: str) -> str:
    """A text that fits into a parameter; one that was cut ends in an ellipsis."""
    return text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 1] + "…"


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
