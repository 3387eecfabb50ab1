"""What every test runs under."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core import signals

# As for the stages themselves (pipeline/launch/environment.py): threads that wait must not spin on cores that others
# use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["tests.prefect_server", "tests.pipeline.launch.slurm_cluster"]


@pytest.fixture(autouse=True)
def _no_request_to_stop_is_left_over() -> Iterator[None]:
    """A command that is run in the test's own process installs handlers there, which remember every signal."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    signals._received.clear()


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """Folder with local copies of the benchmarks; nothing of them is part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "benchmarks"
    folder = Path(os.environ.get("VCORE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(
            f"NOT TESTED ON REAL DATA: no folder {folder}; set VCORE_TEST_DATA to local copies of the benchmarks"
        )
    return folder
