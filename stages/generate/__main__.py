"""`python -m stages.generate SPEC.json`."""

from stages.generate.sample import run
from stages.generate.settings import GenerateSettings
from stages.runtime import run_stage

run_stage(GenerateSettings, run)
