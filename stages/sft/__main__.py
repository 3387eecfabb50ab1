"""`python -m stages.sft SPEC.json`."""

from stages.runtime import run_stage
from stages.sft.settings import SftSettings
from stages.sft.train import run

run_stage(SftSettings, run)
