"""`python -m stages.report SPEC.json`"""

from stages.report.build import build
from stages.report.settings import ReportSettings
from stages.runtime import run_stage

if __name__ == "__main__":
    run_stage(ReportSettings, build)
