"""Entry point of the base stage: `python -m stages.base SPEC.json`."""

from stages.base.run import run
from stages.base.settings import BaseSettings
from stages.harness.process import run_stage

if __name__ == "__main__":
    run_stage(BaseSettings, run)
