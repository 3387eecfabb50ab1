"""GPU leases between processes, with GPUs that are only named: the locks are real, and so are the processes that hold
them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.launch import gpus
from pipeline.launch.gpus import lease

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import subprocess, sys
from pipeline.launch.gpus import lease
gpus, count, stays, child = sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3] == "stays", sys.argv[4:]
with lease(gpus, count, "holder", lambda who: print("waits", who, flush=True)) as held:
    print("has", ",".join(held.gpus), flush=True)
    if child:
        print("child", subprocess.Popen(["sleep", child[0]], pass_fds=held.descriptors).pid, flush=True)
    if stays:
        sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_real_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpu_uuids", lambda: {})


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VCORE_GPU_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


def holder(count: int, how_long: str, *child: str, gpus: str = "0,1") -> subprocess.Popen[str]:
    """A process that says what it waits for and what it has, and `stays` until it is let go, or `leaves` at once."""
    words = [sys.executable, "-c", HOLDER, gpus, str(count), how_long, *child]
    return subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_runs_share_the_gpus_of_a_machine() -> None:
    holders = {line(process): process for process in [holder(1, "stays"), holder(1, "stays")]}
    assert holders.keys() == {"has 0", "has 1"}, "nobody waits while there is a GPU for each"
    first, second = holders["has 0"], holders["has 1"]
    third = holder(1, "leaves")
    assert line(third).startswith("waits GPU 0: holder, process")
    first.kill()
    first.wait()
    assert line(third) == "has 0", "a killed holder's GPU is free at once"
    second.kill()
    assert third.wait(10) == 0
    second.wait()


def test_a_gpu_is_free_only_when_the_last_process_that_may_use_it_has_ended() -> None:
    first = holder(2, "stays", "600")
    assert line(first) == "has 0,1"
    child = int(line(first).split()[1])
    first.kill()
    first.wait()
    second = holder(1, "leaves")
    assert line(second).startswith("waits")
    os.kill(child, signal.SIGKILL)
    assert line(second) == "has 0"
    assert second.wait(10) == 0


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    first = holder(1, "stays")
    assert line(first) == "has 0"
    large = holder(2, "leaves")
    assert line(large).startswith("waits GPU 0")
    small = holder(1, "leaves")
    assert line(small).startswith("waits"), "GPU 1 is free, but somebody waits for both"
    let_go(first)
    assert line(large) == "has 0,1"
    assert line(small).startswith("has")
    assert all(process.wait(10) == 0 for process in (first, large, small))


def test_only_who_has_a_gpu_now_is_named_and_who_is_before_us(locks: Path) -> None:
    killed = holder(1, "stays", gpus="1")
    assert line(killed) == "has 1"
    killed.kill()
    killed.wait()
    assert (locks / "gpu-1.lock").read_text().startswith("holder, process"), "nobody could wipe it"
    first = holder(1, "stays", gpus="0")
    assert line(first) == "has 0"
    large = holder(2, "leaves")
    told = line(large)
    assert told.startswith("waits GPU 0: holder, process")
    assert "GPU 1" not in told
    small = holder(1, "leaves")
    told = line(small)
    assert told.startswith(f"waits GPU 0: holder, process {first.pid}")
    assert "GPU 1" not in told, "it is free, and kept for the head of the queue"
    assert told.endswith("; holder, which waits for GPUs too")
    let_go(first)
    assert all(process.wait(20) == 0 for process in (first, large, small))


def test_a_lease_that_has_ended_leaves_no_name(locks: Path) -> None:
    with lease(["0"], 1, "me", lambda who: None) as held:
        child = subprocess.Popen(["sleep", "600"], pass_fds=held.descriptors)
        assert (locks / "gpu-0.lock").read_text().startswith("me, process")
    assert (locks / "gpu-0.lock").read_text().startswith("me, process"), "the child has it"
    child.kill()
    child.wait()
    with lease(["0"], 1, "you", lambda who: None):
        pass
    assert (locks / "gpu-0.lock").read_text() == ""


def test_one_gpu_by_two_names_is_one_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpu_uuids", lambda: {"0": "GPU-5fd4f087-86f3", "1": "GPU-5e11aaaa-0000"})
    assert gpus.identities(["1", "GPU-5fd4", "GPU-5", "MIG-1"]) == [
        "GPU-5e11aaaa-0000",
        "GPU-5fd4f087-86f3",
        "GPU-5",
        "MIG-1",
    ]

    def give_up() -> None:
        raise TimeoutError

    with (
        lease(["0"], 1, "me", lambda who: None),
        pytest.raises(TimeoutError),
        lease(["GPU-5fd4"], 1, "you", lambda who: None, give_up),
    ):
        pass


def test_the_lease_ends_with_its_block() -> None:
    told: list[str] = []
    for _ in range(2):
        with lease(["7"], 1, "me", told.append) as held:
            assert held.gpus == ("7",)
    assert told == []


def test_other_users_can_lock_too(locks: Path) -> None:
    with lease(["0"], 1, "me", lambda who: None):
        assert locks.stat().st_mode & 0o7777 == 0o1777
        assert (locks / "gpu-0.lock").stat().st_mode & 0o777 == 0o666
