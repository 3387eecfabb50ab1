"""Files, network, capabilities, and other processes and their memory: out of reach."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.sandbox import (
    Sandbox,
)
from tests.evaluation.sandbox.cases import run, value_of


def test_environment_and_arguments_hold_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST", "s3cret")
    assert value_of(sandbox, "import os", "dict(os.environ)") in (
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "0", "LC_CTYPE": "C.UTF-8"},
    )
    assert value_of(sandbox, "import sys", "sys.stdin.read()") == ""


def test_the_harness_cannot_be_imported(sandbox: Sandbox) -> None:
    """Its modules are loaded by path: no entry of sys.path leads to them, and no name in sys.modules."""
    assert value_of(sandbox, "import sys", "[name for name in sys.modules if 'evaluation' in name]") == []
    paths = value_of(sandbox, "import sys", "sys.path")
    assert isinstance(paths, list)
    assert {Path(path).name for path in paths} <= {Path(path).name for path in sys.path}
    assert not any("vcore-sandbox" in path for path in paths)
    for module in ("evaluation", "evaluation.sandbox.child.main", "program", "isolation"):
        detail = run(sandbox, f"import sys\nsys.modules.pop('program')\ndef f(): import {module}").detail
        assert detail.startswith("ModuleNotFoundError"), module


def test_no_files_of_the_machine(isolated: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    listing = "import os\ndef f(): return os.listdir('/')"
    python = Path(os.path.realpath(sys.base_prefix)).parts[1]
    assert set(run(isolated, listing).values[0]) <= {"usr", "lib", "lib64", "etc", "dev", "tmp", python}
    assert set(run(isolated, listing.replace("'/'", "'/usr'")).values[0]) <= {"lib", "lib64", "local", "share"}
    assert set(run(isolated, listing.replace("'/'", "'/usr/local'")).values[0]) <= {"lib"}
    assert run(isolated, listing.replace("'/'", "'/etc'")).values == [["ld.so.cache"]]
    assert run(isolated, f"def f(): return open({str(secret)!r}).read()").detail.startswith("FileNotFoundError")
    for place in ("/usr/x", os.path.realpath(sys.base_prefix) + "/x", "/x", "/dev/x"):
        outcome = run(isolated, f"def f(): open({place!r}, 'w')")
        assert outcome.detail.startswith("OSError: [Errno 30] Read-only file system"), (place, outcome)


def test_its_own_folder_is_small_private_and_removed(isolated: Sandbox) -> None:
    write = (
        "import os\ndef f():\n    before = os.listdir('/tmp')\n    open('/tmp/left', 'w').write('x')\n    return before"
    )
    assert [run(isolated, write).values, run(isolated, write).values] == [[[]], [[]]]
    fill = "def f():\n    for i in range(20):\n        open(f'/tmp/{i}', 'wb').write(bytes(15 * 2**20))"
    assert run(isolated, fill, 5.0).detail.startswith("OSError: [Errno 28] No space left")


def test_no_network(unfiltered: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = (
            f"import socket\ndef f():\n    socket.create_connection(('127.0.0.1', {port}), 1)\n    return 'connected'"
        )
        assert run(unfiltered, connect).status == "raised"
        with Sandbox(level="rlimits", call_filter=False, file_rules=False) as open_sandbox:  # the attack itself works
            assert run(open_sandbox, connect).values == ["connected"]
    assert run(unfiltered, "import socket\ndef f(): return [name for _, name in socket.if_nameindex()]").values in (
        [["lo"]],
        [[]],
    )


def test_no_way_back_to_capabilities(unfiltered: Sandbox) -> None:
    attempts = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def f(): return [libc.unshare(0x10000000), libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), "
        "libc.setuid(0), libc.chroot(b'/usr')]"
    )
    assert run(unfiltered, attempts).values == [[-1, -1, -1, -1]]


def test_other_processes_cannot_be_seen_traced_or_signalled(unfiltered: Sandbox) -> None:
    """Process 1 is the one that reports how the program ended."""
    attempts = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f():\n    out = [libc.ptrace(16, 1, 0, 0)]\n"
        f"    for pid in (1, {os.getpid()}):\n        try: os.kill(pid, 9)\n"
        f"        except OSError as e: out.append(type(e).__name__)\n"
        "    return out"
    )
    # The signal to process 1 of the same user is let pass, and has no effect; root's programs have a user of their own.
    assert run(unfiltered, attempts).values in (
        [[-1, "ProcessLookupError"]],
        [[-1, "PermissionError", "ProcessLookupError"]],
    )


STRANGER = """
import ctypes, os, sys
from evaluation.sandbox import Job, Sandbox
verdict, program = bytearray(b"VERDICT=" + b"wrong__"), sys.stdin.read()
with Sandbox(level="rlimits", file_rules=sys.argv[1] == "rules") as sandbox:
    outcome = sandbox.run(Job([program], expressions=["f()"]), 10.0)
print(sandbox.ruled, verdict.decode(), outcome.texts)
"""


REACH = """
import os, re
def parent(pid): return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
def write(pid):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in open(f"/proc/{pid}/maps"):
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if " rw" not in line or high - low > 2**26: continue
            try: found = re.search(b"VERD" + b"ICT=wrong__", (memory.seek(low), memory.read(high - low))[1])
            except (OSError, ValueError, OverflowError): continue
            if found: memory.write((memory.seek(low + found.start()), b"VERDICT=correct")[1])
    return True
def attempt(pid):
    try: return write(pid)
    except PermissionError: return False
def f():
    watcher = os.getppid()
    try: pids = [watcher, parent(watcher), parent(parent(watcher)), parent(parent(parent(watcher)))]
    except PermissionError: return None
    return [attempt(pid) for pid in pids]
"""


def stranger(rules: str) -> str:
    """What comes of it when an ordinary user grades, without namespaces, a program that writes to the memory of all
    processes before it."""
    python = sys.executable
    if os.getuid() == 0:  # whose memory is safe anyway: the program has none of its capabilities
        python = shutil.which("python3", path="/usr/bin") or ""
        if (
            not python
            or subprocess.run(
                [python, "-c", "import sys; assert sys.version_info >= (3, 11)"], stderr=subprocess.DEVNULL
            ).returncode
        ):
            pytest.skip("NOT TESTED: no Python that another user can run")
    as_other = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [python, "-B", "-c", STRANGER, rules],
        input=REACH,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        **as_other,
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


def test_the_graders_memory_is_out_of_reach_without_namespaces(sandbox: Sandbox) -> None:
    if not sandbox.ruled:
        pytest.skip("NOT TESTED: this kernel has no Landlock")
    assert stranger("rules") == "True VERDICT=wrong__ ['null']"


def test_where_landlock_is_missing_the_sandboxs_own_processes_are_out_of_reach(sandbox: Sandbox) -> None:
    """And the grader is not, which `unprotected` says."""
    assert stranger("none") == """False VERDICT=correct ['["l", false, false, false, true]']"""
    with Sandbox(level="rlimits", file_rules=False) as weak:
        assert any("memory" in text for text in weak.unprotected)


def test_what_is_missing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox(level="rlimits", call_filter=False, file_rules=False) as weak:
        assert any("reach the network" in text for text in weak.unprotected)
        assert any("number of processes" in text for text in weak.unprotected)
    assert "they can read the files" in caplog.text
