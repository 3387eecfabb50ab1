"""Writes a sweep's report: JSON for scripts, CSV and LaTeX for papers, Markdown and one HTML page for people."""

from pathlib import Path

from pipeline.sweep.report.collect import collect
from pipeline.sweep.report.tables import as_csv, as_latex
from pipeline.sweep.report.view import view
from stages.harness.json_files import write_json
from stages.report.documents import REPORT_FILES
from stages.report.render.pages import render_pages


def write_report(home: Path, folder: Path) -> list[Path]:
    """Write the report of the sweep recorded in `folder` beside its record; returns the files.

    Raises:
        ValueError: there is nothing to report.
    """
    report, groups = collect(home, folder)
    write_json(folder / "report.json", report.as_json())
    (folder / "report.csv").write_text(as_csv(report, groups), encoding="utf-8")
    (folder / "report.tex").write_text(as_latex(report), encoding="utf-8")
    render_pages(Path(__file__).parent, view(report, groups), folder)
    return [folder / name for name in REPORT_FILES]
