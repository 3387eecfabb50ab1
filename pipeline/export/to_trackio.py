"""A run in the local store of trackio, a SQLite file for each project."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from pipeline.config.export import TrackioExport
from pipeline.export.content import Content
from pipeline.export.documents import Sent

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Where trackio would send what is logged step by step."""


def send(content: Content, settings: TrackioExport, home: Path) -> Sent:
    """Write a run that is not there yet: all of it in one transaction, so that it is there wholly or not at all.

    Raises:
        ValueError: trackio does not take the project's name.
        sqlite3.Error, OSError: the store cannot be written.
    """
    if settings.folder is not None:
        os.environ["TRACKIO_DIR"] = str(Path(settings.folder).expanduser().absolute())
    import trackio
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR

    project = settings.project or content.pipeline
    SQLiteStorage.validate_project_name(project)
    store = f"TRACKIO_DIR={shlex.quote(str(TRACKIO_DIR))} " if settings.folder is not None else ""
    note = f"To look at it: {store}trackio show --project {shlex.quote(project)}"
    if given := [name for name in ELSEWHERE if os.environ.get(name)]:
        note += f". It is here only; `trackio sync` takes it elsewhere, {given[0]} does not"
    sent = Sent(to="trackio", where=f"{TRACKIO_DIR}, project {project}", run=content.run, note=note)
    if any(record["id"] == content.uid for record in SQLiteStorage.get_run_records(project)):
        return sent.model_copy(update={"state": "there"})
    rows: list[tuple[int, str, dict[str, Any]]] = []
    for curve in content.curves:
        for step, values in curve.rows:
            named = {f"{curve.stage}/{name}": value for name, value in values.items()}
            rows.append((step, curve.time.isoformat(), named))
    last: dict[str, Any] = dict(content.metrics)
    for file in content.files:
        if file.suffix == ".md":  # its dashboard shows Markdown, and no page of its own
            last["report"] = trackio.Markdown(file.read_text(encoding="utf-8"))._to_dict()
    rows.append((0, content.ended.isoformat(), last))
    # Its dashboard reads these three; `trackio.init` sets them.
    known = {"_Created": content.started.isoformat(), "_Group": content.pipeline, "_Username": None}
    SQLiteStorage.bulk_log(
        project=project,
        run=content.run,
        run_id=content.uid,
        metrics_list=[values for _, _, values in rows],
        steps=[step for step, _, _ in rows],
        timestamps=[time for _, time, _ in rows],
        log_ids=[f"{content.uid}-{number}" for number in range(len(rows))],
        config={**content.settings, "vcore": content.facts, **known},
    )
    return sent
