"""`python -m stages.sft SPEC.json`."""

from stages.harness.process import run_stage
from stages.sft.run import run
from stages.sft.settings import SftSettings

if __name__ == "__main__":
    run_stage(SftSettings, run)
