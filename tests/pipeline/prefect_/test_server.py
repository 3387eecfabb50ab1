"""What is said of a Prefect server that does not come up. The processes are real; they are no servers."""

import re
import sys
from pathlib import Path

import pytest

from pipeline.launch.environment import free_port
from pipeline.prefect_ import server


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit(3)", "ended with code 3 before it answered"),
        ("import sys; sys.exit('trouble')", "ended with code 1 before it answered, see LOG"),
        ("import time; time.sleep(60)", r"does not answer 2 s after its start \(is the machine busy\?\)"),
    ],
)
def test_a_server_that_does_not_start_says_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    if "sleep" in program:
        monkeypatch.setattr(server, "START_TIMEOUT_S", 2.0)
    log = tmp_path / "server.log"
    with pytest.raises(server._NotStarted) as caught:
        server._start([sys.executable, "-c", program], free_port(), {}, log)
    assert re.fullmatch(message.replace("LOG", re.escape(str(log))), str(caught.value))
