"""The report stage: tables, intervals and figures over everything a run made."""

from stages.harness.declaration import StageDeclaration
from stages.report.settings import ReportSettings

STAGE = StageDeclaration(
    name="report",
    settings=ReportSettings,
    libraries=("matplotlib", "jinja2"),
    sources=("stages/report",),
    needs_run=True,
)
