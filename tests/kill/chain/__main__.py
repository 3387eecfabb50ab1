"""`python -m tests.kill.chain SPEC.json`"""

from stages.harness.process import run_stage
from tests.kill.chain.run import run
from tests.kill.chain.settings import ChainSettings

if __name__ == "__main__":
    run_stage(ChainSettings, run)
