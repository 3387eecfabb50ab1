"""`vcore sweep` and `vcore report`: one pipeline over a matrix of settings, and what came out of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.options import AsJson, Home, Overrides
from pipeline.cli.printing import out, print_json
from pipeline.core.errors import StageFailed
from pipeline.core.signals import stop_on_signals
from pipeline.run.view import View

if TYPE_CHECKING:
    from pipeline.sweep.sweep import SweepPlan

SweepFile = Annotated[
    Path,
    typer.Argument(
        metavar="SWEEP", help="A sweep's YAML file, for example configs/ablation-cpu.yaml.", show_default=False
    ),
]


def sweep(
    file: SweepFile,
    overrides: Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run, what is shared and how long it takes; run nothing.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Cells at once; each stage then wants its share: execution.threads.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Run cells on a Ray cluster: its address, auto, or local. See the docs."
        ),
    ] = None,
    gpus_per_cell: Annotated[
        float, typer.Option("--gpus-per-cell", min=0, help="With --ray: GPUs that each cell takes.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline for each cell of a matrix of settings. What cells share is made once; the same command resumes."""
    from pipeline.launch.by_hand import refuse_other_nodes
    from pipeline.sweep.documents import SweepRecord, SweepReport
    from pipeline.sweep.fan_out import run_cells
    from pipeline.sweep.find_report import sweep_report
    from pipeline.sweep.ray_runner import RayCells
    from pipeline.sweep.report.tables import summary
    from pipeline.sweep.sweep import load_sweep, plan_sweep

    stop_on_signals()
    refuse_other_nodes()
    loaded = load_sweep(file, overrides or [])
    planned = plan_sweep(loaded)
    if plan:
        _print_plan(planned, as_json)
        return
    cluster = RayCells(ray, gpus_per_cell) if ray is not None else None
    command = command_line(file, overrides or [], jobs, ray, gpus_per_cell)
    home = planned.store.home
    record = SweepRecord.start(home, loaded, command)
    folder = record.folder(home)
    with View() as view:
        view.line(f"[bold]{loaded.settings.name}[/]  {_summary(planned)}; logs in {folder}")
        failed = run_cells(loaded, record, home, jobs, planned.cached < planned.distinct, view.line, cluster)
    if any(cell.status == "done" for cell in record.cells):
        page, _, document, *_ = sweep_report(home, folder)
        report = SweepReport.load(document)
        if as_json:
            print_json(report.as_json())
        else:
            out.print(summary(report), markup=False, soft_wrap=True)
            out.print(f"Report: {page}", soft_wrap=True)
    if failed:
        error = StageFailed(
            "sweep", f"{len(failed)} of {len(loaded.cells)} cells failed: {', '.join(failed)}", fix=f"Logs in {folder}"
        )
        error.continue_with = command
        raise error


def command_line(file: Path, overrides: list[str], jobs: int, ray: str | None, gpus_per_cell: float) -> str:
    """The command that repeats this sweep, as one would type it."""
    words = ["vcore", "sweep", str(file), *(word for override in overrides for word in ("--set", override))]
    if jobs != 1:
        words += ["--jobs", str(jobs)]
    if ray is not None:
        words += ["--ray", ray]
    if gpus_per_cell:
        words += ["--gpus-per-cell", f"{gpus_per_cell:g}"]
    return shlex.join(words)


def report(
    name: Annotated[
        str, typer.Argument(metavar="RUN|SWEEP", help="A run or a sweep by its id, its beginning, or `latest`.")
    ] = "latest",
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Copy the report's files to this folder.")
    ] = None,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Show where the report of a run or a sweep is; a sweep's is made anew from its runs."""
    from pipeline.sweep.find_report import copy_report, find_report

    files = find_report(home, name)
    if target is not None:
        files = copy_report(files, target)
    if as_json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        out.print(escape(str(file)), soft_wrap=True)


def _print_plan(planned: SweepPlan, as_json: bool) -> None:
    if as_json:
        cells = [
            {"labels": c.cell.labels, "name": c.cell.name, "stages": [p.as_json() for p in c.stages]}
            for c in planned.cells
        ]
        totals = {name: getattr(planned, name) for name in ("stages", "distinct", "cached", "seconds", "untimed")}
        print_json({**totals, "cells": cells})
        return
    table = Table(box=None, pad_edge=False)
    for column in (*planned.cells[0].cell.labels, "cached", "to compute here", "shared with a cell above"):
        table.add_column(column, overflow="fold")
    seen: set[str] = set()
    for cell in planned.cells:
        own = [p for p in cell.stages if p.state != "HIT" and cell.computations[p.stage.name] not in seen]
        shared = [p for p in cell.stages if p.state != "HIT" and cell.computations[p.stage.name] in seen]
        cached = sum(p.state == "HIT" for p in cell.stages)
        seen |= set(cell.computations.values())
        table.add_row(
            *cell.cell.labels.values(), str(cached), *(" ".join(p.stage.name for p in group) for group in (own, shared))
        )
    out.print(table)
    out.print(_summary(planned))


def _summary(planned: SweepPlan) -> str:
    left = planned.distinct - planned.cached
    time = f", about {_duration(planned.seconds)} one after the other" if left and planned.seconds else ""
    unknown = f" and {planned.untimed} of unknown length" if planned.untimed else ""
    return (
        f"{len(planned.cells)} cells, {planned.stages} stages: {planned.distinct} different ones, "
        f"{planned.cached} cached, {left} to compute{time}{unknown}"
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
