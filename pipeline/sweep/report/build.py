"""Writes a sweep's report: JSON for scripts, CSV and LaTeX for papers, Markdown and one self-contained HTML page for people."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jinja2

from pipeline.sweep.report import lineage
from pipeline.sweep.report.collect import SweepReport, collect
from pipeline.sweep.report.tables import as_csv, as_latex
from pipeline.sweep.report.view import view
from stages.harness.json_files import write_json
from stages.report.run import inline

TEMPLATES = Path(__file__).parent
FILES = ("report.html", "report.md", "report.json", "report.csv", "report.tex")


def write_report(home: Path, folder: Path) -> list[Path]:
    """Write the report of the sweep recorded in `folder` beside its record; returns the files.

    Raises:
        ValueError: there is nothing to report.
    """
    report = collect(home, folder)
    write_json(folder / "report.json", as_json(report))
    (folder / "report.csv").write_text(as_csv(report), encoding="utf-8")
    (folder / "report.tex").write_text(as_latex(report), encoding="utf-8")
    shown = view(report)
    for name, autoescape in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=autoescape,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters.update(inline=inline)
        (folder / name).write_text(environment.get_template(f"{name}.j2").render(shown), encoding="utf-8")
    return [folder / name for name in FILES]


def as_json(report: SweepReport) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "sweep": {
            name: report.record[name]
            for name in ("id", "name", "command", "axes", "baseline", "started", "ended", "status")
        },
        "tables": [dataclasses.asdict(table) for table in report.tables],
        "steps": [dataclasses.asdict(step) for step in report.steps],
        "comparisons": report.comparisons,
        "seconds": {
            stage: {name: dataclasses.asdict(e) for name, e in groups.items()}
            for stage, groups in report.seconds.items()
        },
        "cost": {
            group: {program: dataclasses.asdict(c) for program, c in costs.items()}
            for group, costs in report.costs.items()
        },
        "spent": dataclasses.asdict(report.spent),
        "computed_s": report.spent.seconds,
        "saved_s": report.saved_s,
        "cells": lineage.as_json(report),
        **lineage.environment(report),
        "published": [{**dataclasses.asdict(p), "inside": p.inside} for p in report.published],
        "published_not_measured": report.not_measured,
        "failed": [
            {name: entry[name] for name in ("labels", "name", "status", "run", "error")} for entry in report.failed
        ],
    }
