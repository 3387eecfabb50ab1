"""Renders the collected report three times: report.json for scripts, report.md for text, report.html for people."""

from pathlib import Path

from stages.harness.context import Context, Result
from stages.harness.json_files import write_json
from stages.report.collect import collect
from stages.report.render.pages import render_pages
from stages.report.settings import ReportSettings
from stages.report.view import view


def run(ctx: Context[ReportSettings]) -> Result:
    """Write report.json, report.md and report.html from the input artifacts."""
    ctx.progress(1, 3, "collect")
    report = collect(ctx)
    ctx.progress(2, 3, "draw")
    shown = view(report)
    write_json(ctx.output / "report.json", report.model_dump())
    render_pages(Path(__file__).parent, shown, ctx.output)
    ctx.progress(3, 3, "write")
    return Result({"results": len(report.results), "stages": len(report.stages)}, {"headline": report.verdict})
