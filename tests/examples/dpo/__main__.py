"""`python -m tests.examples.dpo SPEC.json`"""

from stages.harness.process import run_stage
from tests.examples.dpo.run import run
from tests.examples.dpo.settings import DpoSettings

if __name__ == "__main__":
    run_stage(DpoSettings, run)
