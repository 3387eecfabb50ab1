"""Disks that are full or only read: real file systems, in a mount namespace of their own. A message, what to do, and
never a traceback."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.shipped import ROOT
from pipeline.store.store import Store
from tests.pipeline.helpers import config, make

FULL = """
import os, sys
from pathlib import Path
from pipeline.cli import app as cli
from pipeline.run import execute
from pipeline.store.store import Store
from stages.harness.documents import StageResult
from tests.pipeline.helpers import make

tmp, when = Path(sys.argv[1]), sys.argv[2]
home = tmp / "home"


def fill():
    with open(home / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def run_process(launch, spec, on_event):
    work = launch.work
    (work / "out" / "model").mkdir(parents=True)
    if when == "payload":
        fill()
    (work / "out" / "model" / "weights").write_bytes(bytes(10_000))
    if when == "manifest":
        fill()
    return StageResult(proof={"steps": 1})


remember = Store.remember


def remember_on_a_full_disk(self, pipeline, stage, manifest):
    if when == "latest" and stage == "base":
        fill()
    remember(self, pipeline, stage, manifest)


make(tmp, until="data")
if when == "record":
    fill()
execute.run_process = run_process
Store.remember = remember_on_a_full_disk
os.environ["PREFECT_HOME"] = str(tmp / "prefect")  # its database is larger than this disk
sys.argv = ["vcore", "run", str(tmp / "small.yaml"), "--set", f"home={home}", "--set", "execution.min_free_gib=0.0"]
try:
    cli.main()
finally:
    (home / "filler").unlink(missing_ok=True)
    os.system(f"cp -r {home} {tmp / 'kept'}")
"""


def in_namespace(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command where it may mount what nobody else sees."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", command], capture_output=True, text=True, cwd=ROOT, timeout=300
    )


def skip_unless_mountable(folder: Path) -> None:
    """Skip the test where a namespace's file system cannot be mounted over `folder`."""
    try:
        tried = in_namespace(f"mount -t tmpfs -o size=1m none {shlex.quote(str(folder))}")
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here: full and read-only disks were not tried")
    if tried.returncode != 0:
        pytest.skip(f"mounting is not permitted here ({tried.stderr.strip()}): full and read-only disks were not tried")


@pytest.fixture(autouse=True)
def _may_mount(tmp_path: Path) -> None:
    skip_unless_mountable(tmp_path)


@pytest.mark.parametrize(
    ("when", "code", "where"),
    [
        ("record", 2, "the run's record"),
        ("payload", 1, "stage base"),
        ("manifest", 1, "stage base"),
        ("latest", 1, "stage base"),
    ],
)
def test_a_disk_that_is_full_is_one_message_and_the_command_that_continues(
    tmp_path: Path, when: str, code: int, where: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "full.py").write_text(FULL)
    words = shlex.join([sys.executable, str(tmp_path / "full.py"), str(tmp_path), when])
    ended = in_namespace(f"mount -t tmpfs -o size=2m none {tmp_path / 'home'}; PYTHONPATH={ROOT} {words}")
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"error: {where}: cannot write below {tmp_path / 'home'}: No space left on device" in ended.stderr
    assert "Free some disk space" in ended.stderr
    assert ("continue with: vcore run" in ended.stderr) == (code == 1), (
        "nothing had begun, or what had begun can be continued"
    )
    kept = Store(tmp_path / "kept")
    assert all(kept.find(program, key, reread=True).artifact for program, key, _ in kept.artifacts())
    assert {program for program, _, _ in kept.artifacts()} == ({"data", "base"} if when == "latest" else {"data"})


@pytest.mark.slow
def test_a_store_that_may_only_be_read_can_be_looked_into(tmp_path: Path) -> None:
    make(tmp_path, until="data")
    home = tmp_path / "home"
    for name in ("cache/digests.json", "cache", "trash"):
        (home / name).unlink() if name.endswith("json") else (home / name).rmdir()
    settings = ["--set", f"home={home}", "--set", "execution.min_free_gib=0.0"]
    config(tmp_path)
    commands = {
        "ls": ["store", "ls", "--home", str(home), "--json"],
        "verify": ["store", "verify", "--home", str(home), "--json"],
        "runs": ["runs", "--home", str(home), "--json"],
        "gc": ["store", "gc", "--home", str(home), "--json"],
        "plan": ["plan", str(tmp_path / "small.yaml"), *settings, "--json"],
        "run": ["run", str(tmp_path / "small.yaml"), *settings],
    }
    lines = [f"mount --bind {home} {home}", f"mount -o remount,bind,ro {home}"]
    for name, words in commands.items():
        command = shlex.join([sys.executable, "-m", "pipeline", *words])
        lines.append(f"{command} > {tmp_path / name} 2> {tmp_path / name}.err && echo {name} 0 || echo {name} $?")
    ended = in_namespace("\n".join(lines))
    codes = dict(line.split() for line in ended.stdout.splitlines())
    assert codes == {"ls": "0", "verify": "0", "runs": "0", "gc": "0", "plan": "0", "run": "2"}, ended.stderr
    assert len(json.loads((tmp_path / "ls").read_text())) == 1
    assert json.loads((tmp_path / "verify").read_text()) == {"artifacts": 1, "damaged": {}}
    assert json.loads((tmp_path / "plan").read_text())["stages"][0]["state"] == "HIT"
    assert (
        f"error: home: the store folder {home} cannot be written: Read-only file system"
        in (tmp_path / "run.err").read_text()
    )
