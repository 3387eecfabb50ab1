"""The embedded Prefect server: it starts beside a damaged database, and never outlives its run."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
START = """
import sys, time
from pathlib import Path
from pipeline.prefect_.server import start_embedded_server
server = start_embedded_server(Path(sys.argv[1]), print, own=True)
print(server.process.pid, flush=True)
time.sleep(120)
"""


@pytest.mark.slow
def test_a_damaged_database_is_set_aside_and_a_killed_run_takes_its_server_along(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_bytes(b"no database" * 1000)
    run = subprocess.Popen([sys.executable, "-c", START, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert "set aside in" in run.stdout.readline()
    assert b"no database" in next(tmp_path.glob("damaged-*/prefect.db")).read_bytes()
    server = Path("/proc") / run.stdout.readline().strip()
    assert server.is_dir()
    run.kill()
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 20
    while server.is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.is_dir()
