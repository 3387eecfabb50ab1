"""Several nodes without Slurm: the same `vcore run` is started on each, with VCORE_RENDEZVOUS and VCORE_NODE_RANK set.

The run of node 0 plans and runs the pipeline. Those of the other nodes take part in the stages that have several nodes
(pipeline/launch/node.py). They meet in `HOME/nodes/HOST-PORT/`, on the file system that all of them share: node 0's run
holds a lock there as long as it lives, writes an invitation for each attempt at such a stage, and at last how it ended.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evaluation.harness.child_processes import wait_or_kill
from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import EXIT_STAGE_FAILED, ConfigError, UserError
from pipeline.core.locks import open_lock, read_holder, this_process, try_lock, unlock, write_holder
from pipeline.core.processes import MARK, kill_all, new_mark
from pipeline.launch.commands import Place, launch_command
from pipeline.launch.environment import stage_environment
from pipeline.launch.gpus import lease
from pipeline.launch.machine import visible_gpus
from pipeline.launch.node import NODES, host_name
from stages.harness.documents import Document, Machine

RENDEZVOUS, RANK = "VCORE_RENDEZVOUS", "VCORE_NODE_RANK"
POLL_SECONDS = 0.5
SAVES_S = 3600.0
"""How long the processes of a node that is told to stop may take; the run of node 0 ends them sooner."""
Say = Callable[[str], None]


class Invitation(Document):
    """`invitation.json`: an attempt at a stage that has several nodes."""

    attempt: str
    stage: str
    program: str
    work: str
    launch: dict[str, Any]
    machine: Machine
    hub: bool


class RunEnd(Document):
    """`end.json`: how the run of node 0 ended."""

    failed: bool


def rendezvous() -> Place | None:
    """Where the nodes meet and which one this is, by the environment; None where it names no rendezvous.

    Raises:
        ConfigError: it is not HOST:PORT, or the rank is no number.
    """
    address, rank = os.environ.get(RENDEZVOUS, "").strip(), os.environ.get(RANK, "").strip() or "0"
    if not address:
        if rank != "0":
            raise ConfigError(f"{RANK} is {rank}, and {RENDEZVOUS} is not set", fix=f"export {RENDEZVOUS}=HOST:PORT")
        return None
    parts = re.fullmatch(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if parts is None:
        raise ConfigError(f"{RENDEZVOUS} is {address!r}", fix="Write HOST:PORT, an address of node 0.")
    if not rank.isdecimal():
        raise ConfigError(f"{RANK} is {rank!r}", fix="It is a number from 0.")
    return Place(int(rank), parts["host"].strip("[]"), int(parts["port"]))


def _folder(home: Path, place: Place) -> Path:
    return home / NODES / f"{place.host.replace(':', '.')}-{place.port}"


@contextlib.contextmanager
def hosting(home: Path) -> Iterator[None]:
    """Hold the rendezvous that the environment names for as long as the run of node 0 lasts; nothing where it names
    none. Raises `ConfigError` where another run holds it."""
    place = rendezvous()
    if place is None:
        yield
        return
    folder = _folder(home, place)
    folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / "run.lock") as lock:
        if not try_lock(lock):
            raise ConfigError(f"{read_holder(lock)} is node 0 of {place.host}:{place.port}", fix="Take another port.")
        for file in folder.glob("*.json"):
            file.unlink()
        write_holder(lock, this_process())
        end = RunEnd(failed=True)
        try:
            yield
            end = RunEnd(failed=False)
        finally:
            end.write(folder / "end.json")


def invite(home: Path, invitation: Invitation, nodes: int, say: Say, check: Callable[[], None]) -> Place:
    """Wait until the other nodes take part in an attempt, and return the place of this one.

    Args:
        check: called again and again while waiting; it may raise to give up.
    """
    place = rendezvous()
    assert place is not None  # preflight has seen it
    folder = _folder(home, place)
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.joined"):
        file.unlink(missing_ok=True)
    invitation.write(folder / "invitation.json")
    said: list[int] = []
    while missing := [
        rank for rank in range(1, nodes) if not (folder / f"{invitation.attempt}-{rank}.joined").exists()
    ]:
        check()
        time.sleep(POLL_SECONDS)
        if missing != said:
            names, said = ", ".join(map(str, missing)), missing
            say(f"waits for node {names}: start the same command there with {RANK} set to its number")
    return place


def take_part(home: Path, place: Place, threads: int | None, say: Say) -> None:
    """Take part in the stages of the run of node 0 until it ends.

    Raises:
        UserError: that run failed, was stopped or was killed.
    """
    folder = _folder(home, place)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"node {place.rank} of {place.host}:{place.port}: waits for the run of node 0")
    with open_lock(folder / "run.lock") as lock:
        while _is_free(lock):
            time.sleep(POLL_SECONDS)
        say(f"takes part in the run of {read_holder(lock)}")
        done = ""
        while not _is_free(lock):
            invitation = Invitation.read(folder / "invitation.json")
            if invitation is not None and invitation.attempt != done and place.rank < _settings(invitation).nodes:
                done = invitation.attempt
                _take_part_in(folder, invitation, place, threads, lambda: _is_free(lock), say)
            time.sleep(POLL_SECONDS)
    end = RunEnd.read(folder / "end.json")
    if end is None or end.failed:
        error = UserError("the run of node 0 failed or was stopped", fix="It says why; start it again on all nodes.")
        error.exit_code = EXIT_STAGE_FAILED
        raise error
    say("the run of node 0 is done")


def _is_free(lock: Any) -> bool:
    if not try_lock(lock, shared=True):
        return False
    unlock(lock)
    return True


def _settings(invitation: Invitation) -> LaunchSettings:
    return LaunchSettings.model_validate(invitation.launch)


def _take_part_in(
    folder: Path, invitation: Invitation, place: Place, threads: int | None, gone: Callable[[], bool], say: Say
) -> None:
    """Run this node's processes of one attempt, on GPUs that they take for themselves."""
    launch, machine, work = _settings(invitation), invitation.machine, Path(invitation.work)
    environment = stage_environment(machine.device, threads or machine.threads_given, hub=invitation.hub)
    mark = new_mark()
    with contextlib.ExitStack() as held:
        locks: tuple[int, ...] = ()
        if machine.device == "cuda":
            who = f"node {place.rank} of {invitation.stage}"
            gpus = held.enter_context(lease(visible_gpus(), launch.processes, who, say))
            environment["CUDA_VISIBLE_DEVICES"], locks = ",".join(gpus.gpus), gpus.descriptors
        (folder / f"{invitation.attempt}-{place.rank}.joined").write_text(host_name(), encoding="utf-8")
        while not (work / NODES / invitation.attempt / "0.beat").exists():  # while others are missing
            if gone():
                return
            time.sleep(POLL_SECONDS)
        say(f"{invitation.stage} begins")
        command = launch_command(launch, invitation.program, work / "spec.json", invitation.attempt, place)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**environment, MARK: mark},
            start_new_session=True,
            pass_fds=locks,
        )
        try:
            code = process.wait()
            say(f"{invitation.stage} has ended{f' with exit code {code}' if code else ''}")
        except BaseException:
            say("asks all nodes to save their state and to stop")
            process.terminate()
            wait_or_kill(process, SAVES_S)
            raise
        finally:
            kill_all(process.pid, mark)
