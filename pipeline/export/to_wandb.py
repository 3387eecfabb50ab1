"""A run in Weights & Biases: online, or as a folder for `wandb sync`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.checks.export import wandb_mode
from pipeline.config.export import WandbExport
from pipeline.export.content import Content
from pipeline.export.documents import Sent

COMPLETE = "vcore-exported"
"""File in the folder of an offline run that has been written to its end."""
STEP = "step"
"""`sft/step`: the step of the training, which is the x axis of all of a stage's curves."""
LONGEST_LABEL = 64
"""Characters of a tag."""


def send(content: Content, settings: WandbExport, home: Path) -> Sent:
    """Write a run, or go on with one that an earlier attempt left half written.

    A run has one history there, whose rows come always in the same order: stage after stage, then the scores. Online,
    the server says how many it has, and only what follows is sent. Offline, a folder that is not complete is written
    anew.

    Raises:
        wandb.Error: the server refuses or does not answer, or there is no key for it.
    """
    mode = wandb_mode(settings)
    if mode == "disabled":
        return Sent(to="wandb", where="nowhere", state="off", note="WANDB_MODE, or wandb's settings, switch it off")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    folder = Path(settings.folder or os.environ.get("WANDB_DIR") or home).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    project = settings.project or os.environ.get("WANDB_PROJECT") or content.pipeline
    if mode == "offline" and (earlier := _offline(folder, content.uid)) is not None:
        return Sent(to="wandb", where=str(earlier), run=content.uid, state="there", note=_sync(earlier))
    import wandb

    run = wandb.init(
        project=project,
        entity=settings.entity,
        id=content.uid,
        name=content.run,
        group=content.pipeline,
        dir=folder,
        mode=mode,
        resume="allow" if mode == "online" else None,
        tags=[label[:LONGEST_LABEL] for label in content.labels],
        config={**content.settings, "vcore": content.facts},
        allow_val_change=True,
        # Of this process and this machine, which have nothing to do with the run.
        settings=wandb.Settings(
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=60,
        ),
    )
    for curve in content.curves:
        run.define_metric(f"{curve.stage}/{STEP}", hidden=True)
        run.define_metric(f"{curve.stage}/*", step_metric=f"{curve.stage}/{STEP}")
    rows = list(_rows(content))
    there = run.starting_step  # `run.step` says 0 of a resumed run until the first row has been logged
    for number, row in enumerate(rows[there:], start=there):
        run.log(row, step=number)
    for file in content.files:
        kept = Path(run.dir) / file.name
        shutil.copyfile(file, kept)  # the folder is then whole without this home
        run.save(kept, base_path=run.dir, policy="now")
    written, url = Path(run.dir).parent, run.url or ""
    run.finish(exit_code=0 if content.status == "done" else 1)
    where = str(written) if mode == "offline" else f"{run.entity}/{project}"
    if mode == "offline":
        (written / COMPLETE).touch()
    note, state = _sync(written) if mode == "offline" else "", "there" if there >= len(rows) else "exported"
    return Sent(to="wandb", where=where, run=content.uid, url=url, state=state, note=note)


def _rows(content: Content) -> Iterator[dict[str, Any]]:
    """The history: a row for each recorded row of a curve, and a last one with everything that has no step."""
    for curve in content.curves:
        for step, values in curve.rows:
            named = {f"{curve.stage}/{name}": value for name, value in values.items()}
            yield {**named, f"{curve.stage}/{STEP}": step}
    yield dict(content.metrics)


def _offline(folder: Path, uid: str) -> Path | None:
    """The folder that holds all of an offline run. Half of one, which an earlier attempt left, is removed."""
    complete = None
    for run in sorted(folder.glob(f"*wandb/offline-run-*-{uid}")):
        if (run / COMPLETE).is_file():
            complete = run
        else:
            shutil.rmtree(run)
    return complete


def _sync(run: Path) -> str:
    return f"To upload it: wandb sync {run}"
