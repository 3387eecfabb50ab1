"""Exporting a run when it has ended, however it ended. Nothing that a tracker does changes how the run ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.markup import escape

from pipeline.config.export import ExportSettings
from pipeline.export.documents import Sent
from pipeline.export.process import ExportFailed, again, export_run
from pipeline.run.session import Session


@contextlib.contextmanager
def exported(session: Session) -> Iterator[None]:
    """Around `session.recorded()`: when the record says how the run ended, send it to the trackers of the config.

    A run that somebody stopped is not sent, since whoever stops it may not want to wait: the command for it is said.
    """
    try:
        yield
    finally:
        try:
            for settings in session.config.export:
                _export(session, settings)
        except KeyboardInterrupt:
            session.executor.view.line("[yellow]stopped exporting; the run itself is recorded[/]")


def _export(session: Session, settings: ExportSettings) -> None:
    say, record, home = session.executor.view.line, session.record.data, session.store.home
    command = escape(again(home, record.id, settings))
    if record.status == "interrupted":
        say(f"[yellow]not exported to {settings.to}, since the run was stopped; to do it: {command}[/]")
        return
    say(f"exporting to {settings.to}")
    try:
        sent = export_run(home, record.id, settings)
    except (ExportFailed, OSError) as error:
        recorded = f"The run itself is recorded as {record.status}"
        say(f"[yellow]not exported, {escape(one_line(error))} {recorded}; to export it: {command}[/]")
        return
    for line in sent.trouble:
        say(f"[yellow]left out: {escape(line)}[/]")
    say(escape(describe(sent)))


def one_line(error: Exception) -> str:
    """An error and what to do, as sentences in one line."""
    parts = (part.rstrip(".") + "." for part in str(error).splitlines() if part.strip())
    return " ".join(parts)


def describe(sent: Sent) -> str:
    """What became of an export, in a line."""
    if sent.state == "off":
        return f"not exported to {sent.to}: {sent.note}"
    run = f", run {sent.run}" if sent.run else ""
    if sent.state == "there":
        return f"already in {sent.to} ({sent.where}{run}): nothing is written twice"
    said = f"exported to {sent.to} ({sent.where}{run}): {sent.metrics} metrics, {sent.points:,} points of curves"
    return ". ".join(filter(None, [said, sent.url, sent.note]))
