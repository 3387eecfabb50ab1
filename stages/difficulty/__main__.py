"""`python -m stages.difficulty SPEC.json`."""

from stages.difficulty.run import run
from stages.difficulty.settings import DifficultySettings
from stages.harness.process import run_stage

if __name__ == "__main__":
    run_stage(DifficultySettings, run)
