"""`python -m stages.grpo SPEC.json`."""

from stages.grpo.run import run
from stages.grpo.settings import GrpoSettings
from stages.harness.process import run_stage

if __name__ == "__main__":
    run_stage(GrpoSettings, run)
