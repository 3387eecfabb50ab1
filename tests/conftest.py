"""What every test runs under."""

import os

# As for the stages themselves (pipeline/launch/process.py): threads that wait must not spin on cores that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["tests.prefect_server"]
