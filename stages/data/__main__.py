"""`python -m stages.data SPEC.json`"""

from stages.data.run import run
from stages.data.settings import DataSettings
from stages.harness.process import run_stage

if __name__ == "__main__":
    run_stage(DataSettings, run)
