"""`python -m stages.score SPEC.json`."""

from stages.harness.process import run_stage
from stages.score.run import run
from stages.score.settings import ScoreSettings

if __name__ == "__main__":
    run_stage(ScoreSettings, run)
