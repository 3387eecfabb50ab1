"""`python -m stages.data SPEC.json`"""

from stages.data.build import build
from stages.data.settings import DataSettings
from stages.runtime import run_stage

if __name__ == "__main__":
    run_stage(DataSettings, build)
