"""`python -m stages.generate SPEC.json`."""

from stages.generate.run import run
from stages.generate.settings import GenerateSettings
from stages.harness.process import run_stage

if __name__ == "__main__":
    run_stage(GenerateSettings, run)
