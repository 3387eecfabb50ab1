"""`python -m stages.difficulty SPEC.json`."""

from stages.difficulty.run import run
from stages.difficulty.settings import DifficultySettings
from stages.runtime import run_stage

run_stage(DifficultySettings, run)
