"""A stage on a full disk says where, and what to do: real file systems, in a mount namespace of their own."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from pipeline.core.shipped import ROOT
from stages.harness.context import StageError
from stages.harness.disk import full_disk
from tests.pipeline.run.test_disk import in_namespace, skip_unless_mountable
from tests.tiny import write_spec

WRITES = """
import errno, json, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from stages.harness.disk import full_disk
from tests.tiny import make_tiny_tokenizer

disk = Path(sys.argv[1])
tensor, big, tokenizer = torch.zeros(100_000), "x" * 300_000, make_tiny_tokenizer()


def caused():
    try:
        (disk / "plain").write_text(big)
    except OSError as error:
        raise RuntimeError("the checkpoint cannot be saved") from error


ways = {
    "plain": lambda: (disk / "plain").write_text(big),
    "torch": lambda: torch.save(tensor, disk / "optimizer.pt"),
    "safetensors": lambda: save_file({"a": tensor}, disk / "model.safetensors"),
    "tokenizer": lambda: [tokenizer.save_pretrained(disk / str(number)) for number in range(30)],
    "folders": lambda: [(disk / f"folder{number}").mkdir() for number in range(3000)],
    "caused": caused,
}
said = {}
for name, write in ways.items():
    try:
        write()
    except Exception as error:
        known = full_disk(error, disk)
        said[name] = f"{type(error).__name__}: {error}" if known is None else [known.message, known.fix]
    for path in disk.rglob("*"):
        path.is_file() and path.unlink()
print(json.dumps(said))
"""
FILLS = """
import os

from stages.harness.context import Context, Result
from stages.harness.process import run_stage
from stages.harness.settings import StageSettings


def run(ctx: Context[StageSettings]) -> Result:
    with open(ctx.state / "model", "wb") as file:
        while True:
            file.write(os.urandom(4096))


run_stage(StageSettings, run)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder over which a small disk can be mounted in a namespace."""
    folder = tmp_path / "disk"
    folder.mkdir()
    skip_unless_mountable(folder)
    return folder


@pytest.mark.slow
def test_every_library_that_finds_no_room_is_understood(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "writes.py").write_text(WRITES, encoding="utf-8")
    words = shlex.join([sys.executable, str(tmp_path / "writes.py"), str(disk)])
    ended = in_namespace(f"mount -t tmpfs -o size=200k,nr_inodes=2000 none {disk}; PYTHONPATH={ROOT} {words}")
    said = json.loads(ended.stdout.splitlines()[-1])
    assert len(said) == 6, ended.stderr
    for name, answer in said.items():
        assert isinstance(answer, list), (name, answer)
        assert str(disk) in answer[0], name
        assert answer[1].startswith("Free some disk space"), name


def test_a_stage_that_fills_the_disk_still_says_so(tmp_path: Path, disk: Path) -> None:
    program = tmp_path / "fills.py"
    program.write_text(FILLS, encoding="utf-8")
    spec = write_spec(disk / "work", "fills", {}, {}).read_text(encoding="utf-8")
    (tmp_path / "SPEC.json").write_text(spec, encoding="utf-8")
    command = shlex.join([sys.executable, str(program), str(disk / "work" / "SPEC.json")])
    ended = in_namespace(
        f"mount -t tmpfs -o size=300k none {disk}; mkdir {disk}/work; cp {tmp_path}/SPEC.json {disk}/work;"
        f"PYTHONPATH={ROOT} {command} > {disk}/work/stage.log 2>&1 || cat {disk}/work/error.json"
    )
    error = json.loads(ended.stdout)
    assert error["message"].startswith(f"a file, most likely below {disk}/work, cannot be written: [Errno 28] No space")
    assert error["fix"].startswith("Free some disk space, or choose another `home:`")


KILLED = """
import sys
from pathlib import Path

from pipeline.launch.process import Launch, _failure

disk = Path(sys.argv[1])
with open(disk / "filler", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        launch = Launch(stage="sft", program="stages.sft", work=disk, environment={}, locks=(), grace_s=1.0)
        print(_failure(launch, -6))
"""


def test_a_process_that_a_library_ended_on_a_full_disk_is_understood(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    words = shlex.join([sys.executable, str(tmp_path / "killed.py"), str(disk)])
    ended = in_namespace(f"mount -t tmpfs -o size=100k none {disk}; PYTHONPATH={ROOT} {words}")
    assert ended.stdout.startswith(f"stage sft: was killed by SIGABRT: no room is left below {disk}\nFree some disk")


def test_other_errors_are_not_of_the_disk(tmp_path: Path) -> None:
    for error in (OSError(13, "Permission denied"), StageError("grpo.steps: too few"), RuntimeError("shape mismatch")):
        assert full_disk(error, tmp_path) is None
    quota = full_disk(OSError(122, "Disk quota exceeded", str(tmp_path / "no" / "rows.jsonl")), tmp_path)
    assert quota is not None
    assert quota.message.startswith(f"{tmp_path}/no/rows.jsonl cannot be written: [Errno 122] Disk quota exceeded")
