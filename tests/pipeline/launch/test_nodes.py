"""One training on two nodes of a real Slurm (tests/pipeline/launch/slurm_cluster.py), each with one process."""

from __future__ import annotations

import errno
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import Interrupted, StageFailed
from pipeline.launch import node
from pipeline.launch.environment import stage_environment
from pipeline.launch.process import Launch, _result, run_process
from stages.harness.documents import Machine, Note, Progress, Spec, StageResult
from tests.pipeline.launch.slurm_cluster import KILL_WAIT_S, NODES, jobs
from tests.pipeline.launch.test_process import ROOT, launch
from tests.tiny import make_tiny_model, tiny_demonstrations, write_jsonl

ONE = LaunchSettings(kind="torchrun", processes=2)
TWO = LaunchSettings(kind="slurm", nodes=2, sbatch=["--cpus-per-task=1"])
SFT: dict[str, Any] = {
    "batch_size": 8,
    "max_length": 128,
    "max_steps": 12,
    "learning_rate": 1e-2,
    "checkpoint_steps": 2,
}
SFT["method"] = {"name": "vcore", "probe_fraction": 0.5, "direction": "ema"}
OnEvent = Callable[[Note | Progress], None]


@pytest.fixture(scope="session")
def sft_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    make_tiny_model(folder / "base" / "model")
    write_jsonl(folder / "data" / "sft.jsonl", tiny_demonstrations(32))
    return {"model": str(folder / "base"), "data": str(folder / "data")}


def train(work: Path, inputs: dict[str, str], how: LaunchSettings, on_event: OnEvent, **settings: Any) -> StageResult:
    """Run SFT in a work folder, as the executor would."""
    machine = Machine(device="cpu", threads=1, data_dir=None)
    spec = Spec(stage="sft", settings=SFT | settings, inputs=inputs, seed=0, machine=machine)
    environment = stage_environment("cpu", 1, hub=False)
    attempt = Launch("sft", "stages.sft", work, environment, locks=(), grace_s=60, settings=how)
    return run_process(attempt, spec, on_event)


def content(work: Path) -> dict[str, bytes]:
    files = sorted((work / "out" / "model").rglob("*"))
    return {file.name: file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, sft_inputs: dict[str, str]) -> dict[str, bytes]:
    """What two processes on one node make, without a stop."""
    work = tmp_path_factory.mktemp("straight")
    train(work, sft_inputs, ONE, lambda event: None)
    return content(work)


def of_node(rank: int) -> list[psutil.Process]:
    """The processes that Slurm has started on one of its nodes, and the one that holds them."""
    marked = []
    for process in psutil.process_iter(["environ", "name"]):
        environment = process.info["environ"] or {}
        if environment.get("SLURM_NODEID") == str(rank) and environment.get("SLURMD_NODENAME") == NODES[rank]:
            marked.append(process)
    holders = {
        parent.pid: parent for process in marked for parent in process.parents() if "slurmstepd" in parent.name()
    }
    return [*holders.values(), *marked]


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [None, str(ROOT / "configs" / "accelerate" / "ddp.yaml")], ids=["torchrun", "accelerate"]
)
def test_two_nodes_make_what_two_processes_on_one_make(
    tmp_path: Path, cluster: Path, sft_inputs: dict[str, str], straight: dict[str, bytes], file: str | None
) -> None:
    how = LaunchSettings(kind="slurm", nodes=2, config=file, sbatch=TWO.sbatch)
    result = train(tmp_path, sft_inputs, how, lambda event: None)
    assert result.proof["steps"] == 12
    assert content(tmp_path) == straight
    assert {rank: (end.host, end.code) for rank, end in node.ends_of_nodes(tmp_path).items()} == {
        0: ("n1", 0),
        1: ("n2", 0),
    }
    assert {file.name for file in (tmp_path / "out" / "record").glob("stage*.log")} == {"stage.log", "stage.node-1.log"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_node_that_is_killed_ends_the_others_and_the_next_run_ends_in_the_same_bytes(
    tmp_path: Path, cluster: Path, sft_inputs: dict[str, str], straight: dict[str, bytes]
) -> None:
    killed: list[float] = []

    def kill(event: Note | Progress) -> None:
        if isinstance(event, Progress) and event.step >= 3 and not killed:
            processes = of_node(1)
            assert len(processes) >= 4  # Slurm's own, the node's program, torchrun, and the training
            for process in processes:
                process.send_signal(signal.SIGSTOP)  # none is to see another one end, as when a machine goes down
            killed.append(time.monotonic())
            for process in processes:
                process.kill()

    with pytest.raises(StageFailed, match=r"node 1 \(n2\) was lost") as failed:
        train(tmp_path, sft_inputs, TWO, kill)
    took = time.monotonic() - killed[0]
    assert took < node.LOST_S + node.ENDS_S + KILL_WAIT_S + 15, "the others have ended"
    assert not of_node(0)
    assert not jobs()
    assert failed.value.cause == "node"
    assert all(name in str(failed.value) for name in ("stage.log", "stage.node-1.log"))

    notes: list[str] = []
    train(tmp_path, sft_inputs, TWO, lambda event: notes.append(event.message) if isinstance(event, Note) else None)
    assert any(note.startswith("resuming from step") for note in notes), notes
    assert content(tmp_path) == straight


@pytest.mark.slow
def test_nodes_that_are_stopped_save_and_go_on_to_the_same_bytes(
    tmp_path: Path, cluster: Path, sft_inputs: dict[str, str], straight: dict[str, bytes]
) -> None:
    def stop(event: Note | Progress) -> None:
        if isinstance(event, Progress) and event.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sft_inputs, TWO, stop)
    assert {file.name for file in tmp_path.glob("stopped.*")} == {"stopped.0", "stopped.1"}, "none was killed"
    notes: list[str] = []
    train(tmp_path, sft_inputs, ONE, lambda event: notes.append(event.message) if isinstance(event, Note) else None)
    assert any(note.startswith("resuming from step") for note in notes), notes
    assert content(tmp_path) == straight, "whatever the number of nodes that go on"


@pytest.mark.slow
def test_an_error_says_on_which_node_it_was(tmp_path: Path, cluster: Path) -> None:
    with pytest.raises(StageFailed, match=r"rank 1 has no memory \(node 1 \(n2\) failed\)") as failed:
        launch(tmp_path, "second_rank", settings=TWO)
    assert failed.value.cause == "memory"
    assert str(tmp_path / "w" / "stage.node-1.log") in str(failed.value)
    assert "MemoryError" in (tmp_path / "w" / "stage.node-1.log").read_text()


@pytest.mark.slow
def test_nodes_that_do_not_listen_are_ended(tmp_path: Path, cluster: Path) -> None:
    with pytest.raises(StageFailed, match="time limit"):
        launch(tmp_path, "deaf", settings=TWO, time_limit_s=15.0, grace_s=2.0)
    assert len(list((tmp_path / "w" / "out").glob("pid*"))) == 2
    assert not jobs()
    assert not of_node(0) + of_node(1)


@pytest.mark.parametrize(("lost", "ends"), [("node 1 (n2)", StageFailed), ("", Interrupted)])
def test_a_lost_node_is_no_stop_although_its_job_is_cancelled(tmp_path: Path, lost: str, ends: type[Exception]) -> None:
    folder = tmp_path / node.NODES / "17"
    folder.mkdir(parents=True)
    (folder / node.STOP).touch()
    node.NodeExit(host="n1", code=1, lost=lost).write(folder / "0.exit")
    attempt = Launch("sft", "stages.sft", tmp_path, {}, locks=(), grace_s=60, settings=TWO)
    with pytest.raises(ends):
        _result(attempt, 75)


def test_a_disk_that_refuses_a_beat_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no room from before the first beat until the training has ended; the exit code is said then."""
    work, written = tmp_path / "work", Path.write_text
    here = node.Node(work, "a", 0, 1)

    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        if path.suffix == ".part" and path.parent == here.folder:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return written(path, *args, **kwargs)

    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(node, "BEAT_SECONDS", 0.0)
    try:
        code = here.run([sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"])
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    assert code == 0
    assert (tmp_path / "ran").is_file()
    assert not (here.folder / "0.beat").exists()
    assert node.ends_of_nodes(work)[0].code == 0


def test_a_stop_that_cannot_be_written_stops_this_node_and_is_passed_on_later(tmp_path: Path) -> None:
    here = node.Node(tmp_path, "a", 0, 2)
    aside = here.folder.rename(tmp_path / "aside")  # as a file system that does not answer
    here._ask_all_to_stop(signal.SIGTERM, None)
    assert here._stopping
    aside.rename(here.folder)
    here._look()
    assert (here.folder / node.STOP).exists()
