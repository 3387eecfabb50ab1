"""The rules on files, which must hold without the filter of system calls."""

import os
import socket
from pathlib import Path

import pytest

from evaluation.sandbox import (
    Sandbox,
    landlock,
)
from tests.evaluation.sandbox.cases import run


def test_rules_on_files_leave_python_and_a_folder_of_its_own(ruled: Sandbox) -> None:
    use = (
        "import json, tempfile, decimal, os, shutil\ndef f():\n    os.mkdir('a')\n    open('a/b', 'w').write('x')\n"
        "    os.rename('a/b', 'c')\n    shutil.rmtree('a')\n    open('/dev/null', 'w').write('x')\n"
        "    return [open('c').read(), tempfile.TemporaryFile().write(b'abc')]"
    )
    assert run(ruled, use, 5.0).values == [["x", 3]]


REACHES = [
    *(
        "open(SECRET)",
        "os.listdir(os.path.dirname(SECRET))",
        "open('/etc/passwd')",
        "os.listdir('/proc')",
        "open('/proc/1/environ')",
    ),
    *(
        "open(SECRET, 'w')",
        "os.unlink(SECRET)",
        "os.rename(SECRET, 'x')",
        "os.link(SECRET, 'x')",
        "os.truncate(SECRET, 0)",
    ),
    *(
        "os.mkdir(SECRET + '1')",
        "os.symlink('/', SECRET + '2')",
        "os.mkfifo(SECRET + '3')",
        "open('/usr/x', 'w')",
        "open('/dev/shm/x', 'w')",
    ),
    *(
        "open('/proc/self/mem', 'r+b')",
        "open(f'/proc/{os.getppid()}/mem', 'r+b')",
        "os.kill(GRADER, 0)",
        "os.execv(sys.executable, ['x'])",
    ),
]


@pytest.mark.parametrize("reach", REACHES)
def test_rules_on_files_refuse_the_rest(ruled: Sandbox, tmp_path: Path, reach: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    source = f"import os, sys\nSECRET, GRADER = {str(secret)!r}, {os.getpid()}\ndef f():\n    {reach}"
    outcome = run(ruled, source)
    assert outcome.status == "raised"
    assert outcome.detail.startswith(
        ("PermissionError", "FileNotFoundError", "OSError: [Errno 30]", "OSError: [Errno 18]", "ProcessLookupError")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert secret.read_text() == "s3cret"


def test_tcp_is_refused_by_rules_alone(ruled: Sandbox) -> None:
    if landlock.version() < landlock.TCP_SINCE:
        pytest.skip("NOT TESTED: this kernel's Landlock does not know TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket\ndef f(): socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert run(ruled, connect).detail.startswith(("PermissionError", "OSError: [Errno 101]", "ConnectionRefused"))
