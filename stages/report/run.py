"""Renders the collected report three times: report.json for scripts, report.md for text, report.html for people."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jinja2

from stages.harness.context import Context, Result
from stages.harness.json_files import write_json
from stages.report.collect import collect
from stages.report.cost import cost_of
from stages.report.model import Report
from stages.report.settings import ReportSettings
from stages.report.view import view

TEMPLATES = Path(__file__).parent


def run(ctx: Context[ReportSettings]) -> Result:
    """Write report.json, report.md and report.html from the input artifacts."""
    ctx.progress(1, 3, "collect")
    report = collect(ctx)
    ctx.progress(2, 3, "draw")
    shown = view(report)
    write_json(ctx.output / "report.json", as_json(report))
    for name, autoescape in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=autoescape,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters.update(fence=fence, inline=inline)
        text = environment.get_template(f"{name}.j2").render(shown)
        (ctx.output / name).write_text(text, encoding="utf-8")
    ctx.progress(3, 3, "write")
    return Result({"results": len(report.results), "stages": len(report.stages)}, {"headline": report.verdict})


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; `results` and `stages` are a contract with scripts.

    `git` and `hardware` are those of the stage that was computed last; each stage has its own beside its versions.
    """
    latest = max(report.stages, key=lambda stage: stage.started)
    return {
        "title": report.title,
        "verdict": report.verdict,
        "seed": report.seed,
        "command": report.command,
        "results": [{**dataclasses.asdict(result), "split": result.split} for result in report.results],
        "comparisons": [
            {
                "benchmark": c.benchmark,
                "before": c.before,
                "after": c.after,
                "verdict": c.verdict,
                **({"exact": c.exact, **dataclasses.asdict(c.difference)} if c.difference is not None else {}),
            }
            for c in report.comparisons
        ],
        "stages": [
            {f.name: getattr(stage, f.name) for f in dataclasses.fields(stage) if f.name != "curve"}
            | {"cost": dataclasses.asdict(cost_of(stage, report.config))}
            for stage in report.stages
        ],
        "caveats": report.caveats,
        "versions": {library: ", ".join(found) for library, found in report.versions.items()},
        "git": latest.git,
        "hardware": latest.hardware,
        "config": report.config,
    }


def fence(text: str) -> str:
    """A Markdown code block that no backticks inside the text can end."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}text\n{text}\n{ticks}"


def inline(text: object) -> str:
    """Text for one line or table cell of Markdown, in which nothing is markup."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|~>#])", r"\\\1", line)
