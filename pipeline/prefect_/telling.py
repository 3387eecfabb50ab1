"""Who hears of a run beside those who look at it: automations on the server, by events, and a notification block.

Nothing here ends or delays a run: an event is put into a queue of Prefect's, and what a block cannot send is a warning.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.events import emit_event
from prefect.exceptions import EventTooLarge

from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError, UserError
from pipeline.prefect_.client import SERVER_ERRORS
from pipeline.prefect_.recording import Event
from pipeline.prefect_.view import slug
from pipeline.run.documents import RunRecordDocument
from pipeline.run.gates.moved import alert_text


def emit(
    event: str,
    config: str,
    *,
    checkpoint: str = "",
    benchmark: str = "",
    state: str = "",
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Send an event to the server, for automations to match. Called in a flow or a task, which the server adds to it.

    Its resource is `vcore.CONFIG`, and of a checkpoint or a benchmark `vcore.CONFIG.CHECKPOINT.BENCHMARK`. What is
    given is a label too: `vcore.config`, `vcore.checkpoint`, `vcore.benchmark`, `vcore.state`.

    Args:
        event: its name: `vcore.gate.failed`.
        config: the pipeline's name.
        state: how it came about: `ran` or `cached`, say.
        payload: more about it, as JSON; what the server finds too large is left out.
    """
    labels = {"config": config, "checkpoint": checkpoint, "benchmark": benchmark, "state": state}
    place = [name for name in (config, checkpoint, benchmark) if name]
    resource = {"prefect.resource.id": ".".join(["vcore", *place]), "prefect.resource.name": " ".join(place)}
    resource |= {f"vcore.{label}": value for label, value in labels.items() if value}
    try:
        emit_event(event, resource, payload=dict(payload or {}))
    except EventTooLarge:
        emit_event(event, resource)


def tell_end(begin: Event, end: Event, block: NotificationBlock | None) -> None:
    """Tell how a run has ended: `vcore.run.finished` or `vcore.run.failed`; of a run that was stopped, nothing.

    Args:
        begin, end: the run's first and last event (recording.py).
        block: is notified of what `execution.notify_on` names.
    """
    if end["status"] == "interrupted":
        return
    kind = "finished" if end["status"] == "done" else "failed"
    state = end["status"] if kind == "failed" else "cached" if end["cached"] else "ran"
    told = {"run": begin["run"], "message": end["message"], "folder": begin["folder"]}
    emit(f"vcore.run.{kind}", begin["name"], state=state, payload=told)
    if kind in begin["notify_on"]:
        where = f"\n\nRun {begin['run']}, in {begin['folder']}." if begin["run"] else ""
        text = f"# {begin['name']} {kind}\n\n{end['message']}{where}\n"
        notify(block, begin["notify"], f"vcore: {begin['name']} {kind}", text)


def tell_refusal(path: Path, overrides: Sequence[str], error: UserError) -> None:
    """Tell of a run that failed before it had begun, as `tell_end` does; of a config that cannot be read, by the event
    alone, which has the file's name for the pipeline's."""
    begin: Event = {"name": path.stem, "notify": None, "notify_on": [], "run": "", "folder": ""}
    block = None
    try:
        config = load_config(path, list(overrides))
        begin |= {"name": config.name, "notify": config.execution.notify, "notify_on": config.execution.notify_on}
        block = notifier(config.execution.notify)
    except (UserError, *SERVER_ERRORS) as trouble:
        get_run_logger().warning("nobody is notified: %s", trouble)
    tell_end(begin, {"status": "failed", "message": str(error)}, block)


def notifier(name: str | None) -> NotificationBlock | None:
    """The notification block of that name. Raises `ConfigError` where the server has none, or it cannot notify."""
    if name is None:
        return None
    fix = "Make it in the UI (Blocks), and name it as TYPE/NAME."
    try:
        block = Block.load(name)
    except ValueError as error:
        raise ConfigError(f"no notification block {name}: {error}", where="execution.notify", fix=fix) from error
    if not isinstance(block, NotificationBlock):
        raise ConfigError(f"{name} is a {type(block).__name__}, which cannot notify", where="execution.notify", fix=fix)
    return block


def notify(block: NotificationBlock | None, name: str | None, subject: str, text: str) -> None:
    """Send a message by a block, where there is one. One that cannot be sent is a warning: the run goes on.

    Args:
        name: of the block, for that warning.
        text: Markdown.
    """
    if block is None:
        return
    send: Any = block.notify  # a coroutine only inside an event loop
    try:
        send(text, subject=subject)
    except Exception as error:  # noqa: BLE001 - whatever the service's client raises
        get_run_logger().warning("%s was not told: %s: %s", name, type(error).__name__, error)


def show_alerts(name: str, notify_by: str | None, record: RunRecordDocument, block: NotificationBlock | None) -> None:
    """Say that scores have moved: by a flagged artifact, a warning in the log, and the notification block, where one is
    to be told."""
    moved = record.moved or []
    if not moved:
        return
    text = alert_text(name, record)
    get_run_logger().warning(text)
    flag = f"FLAGGED: {len(moved)} scores moved, or could not be compared"
    create_markdown_artifact(text, key=f"{slug(name)}-alert", description=flag)
    notify(block, notify_by, f"vcore: scores of {name} moved", text)
