"""How nodes that were started by hand find each other, give up, and hear of node 0's end: all of them threads here."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.sweep import sweep
from pipeline.config.execution import ExecutionSettings
from pipeline.core.errors import ConfigError, StageFailed, UserError
from pipeline.launch import by_hand, gpus, peer
from pipeline.launch.by_hand import Invitation, RunEnd, check_address, hosting, invite, withdraw
from pipeline.launch.commands import Place
from pipeline.launch.environment import free_port
from pipeline.launch.gpus import lease
from pipeline.launch.node import NODES
from pipeline.launch.peer import take_part
from pipeline.plan.decide import Options
from pipeline.run.session import Session
from pipeline.run.view import View
from stages.harness.documents import Machine
from tests.pipeline.helpers import config as settings_of

PLACE = Place(1, "127.0.0.1", 29500)
TWO = {"kind": "torchrun", "nodes": 2}
SLOW = 20.0


def execution(**launch: Any) -> ExecutionSettings:
    return ExecutionSettings.model_validate({"launch": {"sft": TWO | launch}})


@pytest.fixture(autouse=True)
def node_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS", f"{PLACE.host}:{PLACE.port}")
    monkeypatch.setenv("VCORE_NODE_RANK", "0")
    monkeypatch.delenv("VCORE_RENDEZVOUS_TIMEOUT", raising=False)
    for module in (by_hand, peer):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


class Started:
    """A node other than node 0 in a thread, with what it said and how it ended."""

    def __init__(self, home: Path, place: Place = PLACE, **launch: Any) -> None:
        self.said: list[str] = []
        self.error: BaseException | None = None

        def work() -> None:
            try:
                take_part(home, place, execution(**launch), self.said.append)
            except UserError as error:
                self.error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        until(lambda: bool(self.said) or self.error is not None)

    def ended(self) -> str:
        """What it ended with; empty where all was well."""
        self._thread.join(SLOW)
        assert not self._thread.is_alive(), f"still waits: {self.said}"
        return str(self.error or "")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SLOW
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def invitation(home: Path, attempt: str = "a", device: str = "cpu", **launch: Any) -> Invitation:
    machine = Machine(device=device, threads=1, data_dir=None)
    settings = execution(**launch).launch["sft"].model_dump()
    return Invitation(
        attempt=attempt,
        stage="sft",
        program="stages.sft",
        work=str(home / "work"),
        launch=settings,
        machine=machine,
        hub=False,
    )


def ask(home: Path, attempt: str = "a", nodes: int = 2, device: str = "cpu", **launch: Any) -> Place:
    return invite(home, invitation(home, attempt, device, **launch), nodes, lambda text: None, lambda: None)


def folder_of(home: Path) -> Path:
    return by_hand.meeting_folder(home, PLACE)


def test_a_peer_hears_that_node_0_was_refused(tmp_path: Path) -> None:
    """Before there is anything to take part in: a setting that only the plan finds wrong."""
    settings = settings_of(tmp_path, "execution.launch={sft: {kind: torchrun, nodes: 2}}")
    waiting = Started(settings.home_folder)
    overrides = [f"home={settings.home_folder}", "execution.launch={sft: {kind: torchrun, nodes: 2}, nothing: {}}"]
    with pytest.raises(ConfigError, match="no stage 'nothing'"):
        Session.prepare(tmp_path / "small.yaml", overrides, Options(), View())
    assert "the run of node 0 failed" in waiting.ended()


def test_a_peer_hears_of_a_run_shorter_than_its_polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "POLL_SECONDS", 1.0)
    waiting = Started(tmp_path)
    with hosting(tmp_path, execution()):
        pass
    assert waiting.ended() == ""


def test_a_peer_that_comes_late_does_not_wait_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosting(tmp_path, execution()):
        pass
    monkeypatch.setattr(peer, "RECENT_S", 0.5)
    assert Started(tmp_path).ended() == ""


def test_the_end_of_an_older_run_is_not_taken_for_this_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS_TIMEOUT", "0.3")
    old = RunEnd(failed=False, run="process 1 on n1", ended=time.time() - 3600)
    old.write(folder_of(tmp_path) / by_hand.END)
    assert "node 0 did not start its run within 0.3 s" in Started(tmp_path).ended()


@pytest.mark.parametrize("given", ["soon", "0", "-1"])
def test_a_timeout_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS_TIMEOUT", given)
    with pytest.raises(ConfigError, match="VCORE_RENDEZVOUS_TIMEOUT is"), hosting(tmp_path, execution()):
        pass


def test_a_failed_run_ends_its_peers_in_failure(tmp_path: Path) -> None:
    waiting = Started(tmp_path)

    def run() -> None:
        with hosting(tmp_path, execution()):
            until(lambda: any("takes part" in text for text in waiting.said))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert "failed or was stopped" in waiting.ended()


def test_node_0_gets_its_lock_while_others_look_at_it(tmp_path: Path) -> None:
    lock = folder_of(tmp_path) / by_hand.LOCK
    with by_hand.open_lock(lock) as looking:
        assert by_hand.try_lock(looking, shared=True)
        timer = threading.Timer(0.3, lambda: peer.unlock(looking))
        timer.start()
        with hosting(tmp_path, execution()):
            assert lock.read_text().startswith("process ")
        timer.join()


def test_two_runs_cannot_be_node_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "LOOKED_AT_S", 0.1)
    second = hosting(tmp_path, execution())
    with hosting(tmp_path, execution()), pytest.raises(ConfigError, match=r"process .* is node 0 of"), second:
        pass


def test_a_run_without_nodes_by_hand_holds_nothing(tmp_path: Path) -> None:
    with hosting(tmp_path, execution(kind="slurm")), hosting(tmp_path, ExecutionSettings()):
        assert not (tmp_path / NODES).exists()


def test_only_run_is_for_other_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    monkeypatch.setenv("VCORE_NODE_RANK", "1")
    with pytest.raises(ConfigError, match="VCORE_NODE_RANK is 1: such a node takes part in a `vcore run`"):
        Session.prepare(tmp_path / "small.yaml", [f"home={settings.home_folder}"], Options(), View())
    with pytest.raises(ConfigError, match="takes part in a `vcore run`"):
        sweep(tmp_path / "before-this-is-read.yaml")


def test_a_number_that_no_stage_has_is_refused(tmp_path: Path) -> None:
    assert "VCORE_NODE_RANK is 2, and no stage has more: at most 2 nodes" in Started(tmp_path, Place(2, "n", 1)).ended()
    assert "no stage has several nodes that are started by hand" in Started(tmp_path, kind="slurm").ended()


def test_node_0_names_who_did_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS_TIMEOUT", "0.3")
    with hosting(tmp_path, execution()):
        waiting = Started(tmp_path, nodes=3)
        with pytest.raises(StageFailed, match=r"node 2 did not take part within 0\.3 s"):
            ask(tmp_path, nodes=3)
        assert not (folder_of(tmp_path) / by_hand.INVITATION).exists()
    assert waiting.ended() == ""


def test_a_node_without_the_interpreter_of_the_stage_says_so_to_node_0(tmp_path: Path) -> None:
    there_only = invitation(tmp_path).model_copy(update={"python": "/envs/new/bin/python"})
    with hosting(tmp_path, execution()):
        waiting = Started(tmp_path)
        with pytest.raises(StageFailed, match=r"names /envs/new/bin/python, which is not on this machine"):
            invite(tmp_path, there_only, 2, lambda text: None, lambda: None)
    assert waiting.ended() == ""


def test_a_node_with_too_few_gpus_says_so_to_node_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "visible_gpus", lambda: ["0"])
    with hosting(tmp_path, execution()):
        waiting = Started(tmp_path)
        with pytest.raises(StageFailed, match=r"node 1 \(.*\) cannot take part: 2 processes need .* and it has 1"):
            ask(tmp_path, device="cuda", processes=2)
    assert waiting.ended() == ""


def test_a_peer_leaves_the_queue_for_gpus_when_node_0_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(gpus, "gpu_uuids", dict)
    monkeypatch.setenv("VCORE_GPU_LOCKS", str(tmp_path / "locks"))
    with lease(["0"], 1, "somebody", lambda who: None):
        with hosting(tmp_path, execution()):
            waiting = Started(tmp_path)
            invited = invitation(tmp_path, device="cuda")
            run = (folder_of(tmp_path) / by_hand.LOCK).read_text()
            invited.model_copy(update={"run": run}).write(folder_of(tmp_path) / by_hand.INVITATION)
            until(lambda: any("somebody" in text for text in waiting.said))
        assert waiting.ended() == ""


def test_a_lease_of_more_gpus_than_there_are_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_GPU_LOCKS", str(tmp_path / "locks"))
    two = lease(["0"], 2, "sft", lambda who: None)
    with pytest.raises(ConfigError, match="sft needs 2 GPUs, and 1 can be seen"), two:
        pass


def test_a_peer_leaves_an_attempt_that_was_given_up(tmp_path: Path) -> None:
    with hosting(tmp_path, execution()):
        waiting = Started(tmp_path)
        ask(tmp_path, "a")
        withdraw(tmp_path, "a")
        until(lambda: not list(folder_of(tmp_path).glob("*.joined")))
        assert ask(tmp_path, "b") == Place(0, PLACE.host, PLACE.port), "it takes part in the next one"
    assert waiting.ended() == ""
    left = {file.name for file in folder_of(tmp_path).iterdir()}
    assert left == {by_hand.LOCK, by_hand.END}


def test_an_invitation_of_another_run_is_ignored(tmp_path: Path) -> None:
    with hosting(tmp_path, execution()):
        invitation(tmp_path).model_copy(update={"run": "process 1 on n1"}).write(
            folder_of(tmp_path) / by_hand.INVITATION
        )
        waiting = Started(tmp_path)
        time.sleep(0.2)
        assert not list(folder_of(tmp_path).glob("*.joined"))
    assert waiting.ended() == ""


def test_two_machines_cannot_be_one_node(tmp_path: Path) -> None:
    with hosting(tmp_path, execution()):
        first, second = Started(tmp_path), Started(tmp_path)
        ask(tmp_path)
        until(lambda: first.error is not None or second.error is not None)
        one = first if first.error is not None else second
        assert "Give each machine a number of its own" in one.ended()
        assert len(list(folder_of(tmp_path).glob("*.joined"))) == 1
    assert sorted([first.ended() == "", second.ended() == ""]) == [False, True]


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_an_address_that_cannot_be_listened_on_is_refused(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS", f"127.0.0.1:{free_port()}")
    check_address()
    monkeypatch.setenv("VCORE_RENDEZVOUS", f"127.0.0.1:{listening}")
    with pytest.raises(ConfigError, match=f"port {listening} of 127.0.0.1 is in use on this machine"):
        check_address()
    monkeypatch.setenv("VCORE_RENDEZVOUS", f"192.0.2.1:{free_port()}")  # kept for documentation: no machine has it
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1 is no address of this machine"):
        check_address()
    monkeypatch.setenv("VCORE_NODE_RANK", "1")
    check_address()
