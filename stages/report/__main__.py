"""`python -m stages.report SPEC.json`"""

from stages.harness.process import run_stage
from stages.report.run import run
from stages.report.settings import ReportSettings

if __name__ == "__main__":
    run_stage(ReportSettings, run)
