"""Several nodes without Slurm: the same `vcore run` is started on each, with VCORE_RENDEZVOUS and VCORE_NODE_RANK set.

The run of node 0 plans and runs the pipeline. Those of the other nodes take part in the stages that have several nodes
(pipeline/launch/peer.py, pipeline/launch/node.py). They meet in `HOME/nodes/HOST-PORT/`, on the file system that all of
them share:

- `run.lock` is locked by node 0's run as long as it lives, and says who that is.
- `invitation.json` is of the attempt at such a stage that waits or is at work.
- `ATTEMPT-RANK.joined` says that a node takes part in it, `ATTEMPT-RANK.refused` why it cannot.
- `end.json` says how the last run ended.
"""

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from pipeline.config.execution import ExecutionSettings, LaunchSettings
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.core.locks import open_lock, read_holder, this_process, try_lock, write_holder
from pipeline.launch.commands import Place
from pipeline.launch.node import NODES
from stages.harness.documents import Document, Machine

RENDEZVOUS, RANK, TIMEOUT = "VCORE_RENDEZVOUS", "VCORE_NODE_RANK", "VCORE_RENDEZVOUS_TIMEOUT"
TIMEOUT_S = 1800.0
"""How long nodes wait for each other, where TIMEOUT does not say."""
POLL_SECONDS = 0.5
LOOKED_AT_S = 5.0
"""How long to try for the lock: other nodes look whether it is free, and hold it for that moment."""
LOCK, INVITATION, END = "run.lock", "invitation.json", "end.json"
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
    python: str | None = None
    """The interpreter of the stage, where it is another than the pipeline's own."""
    run: str = ""
    """The run it is from, as `run.lock` names it."""

    @property
    def settings(self) -> LaunchSettings:
        return LaunchSettings.model_validate(self.launch)


class RunEnd(Document):
    """`end.json`: how the run of node 0 ended."""

    failed: bool
    run: str
    """As `run.lock` named it."""
    ended: float
    """Seconds since the epoch, by the clock of node 0."""


class Refusal(Document):
    """`ATTEMPT-RANK.refused`: a node cannot take part in an attempt."""

    why: str


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
    if not 1 <= int(parts["port"]) <= 65535:
        raise ConfigError(f"{RENDEZVOUS} is {address!r}", fix="A port is a number from 1 to 65535.")
    if not rank.isdecimal():
        raise ConfigError(f"{RANK} is {rank!r}", fix="It is a number from 0.")
    return Place(int(rank), parts["host"].strip("[]"), int(parts["port"]))


def timeout() -> float:
    """How many seconds nodes wait for each other, by the environment. Raises `ConfigError` where that is no number."""
    given = os.environ.get(TIMEOUT, "").strip()
    if not given:
        return TIMEOUT_S
    if re.fullmatch(r"\d+(\.\d+)?", given) is None or float(given) == 0:
        raise ConfigError(f"{TIMEOUT} is {given!r}", fix="It is a number of seconds above 0.")
    return float(given)


def nodes_by_hand(execution: ExecutionSettings) -> int:
    """The most nodes on which a stage is started by hand; 1 where none has several, or all of them are Slurm jobs."""
    return max((launch.nodes for launch in execution.launch.values() if launch.kind != "slurm"), default=1)


def refuse_other_nodes() -> None:
    """Raise `ConfigError` where the environment makes this a node other than node 0; for all but `vcore run` itself."""
    place = rendezvous()
    if place is not None and place.rank > 0:
        message = f"{RANK} is {place.rank}: such a node takes part in a `vcore run` of node 0, and does nothing else"
        raise ConfigError(message, fix=f"Use `vcore run` with node 0's config and options, or unset {RANK}.")


def check_address() -> None:
    """Raise `ConfigError` where this is node 0 and its processes could not be reached where the nodes are to meet."""
    place = rendezvous()
    if place is None or place.rank > 0:
        return
    refusals: list[OSError | None]
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        refusals = [_refusal_to_bind(family, kind, number, address) for family, kind, number, _, address in found]
    except socket.gaierror as error:
        refusals = [error]
    in_use = [refusal for refusal in refusals if refusal is not None and refusal.errno == errno.EADDRINUSE]
    refusal = next(iter(in_use), refusals[0])
    if refusal is None or (None in refusals and not in_use):  # a name may have addresses of IPv4 and of IPv6
        return
    if refusal.errno == errno.EADDRINUSE:
        message, fix = f"port {place.port} of {place.host} is in use on this machine", "Take another port on all nodes."
    elif refusal.errno == errno.EADDRNOTAVAIL or isinstance(refusal, socket.gaierror):
        message = f"{place.host} is no address of this machine, which is node 0"
        fix = f"Name one that the other nodes reach, or set {RANK} to this node's number."
    else:
        message, fix = f"cannot listen on {place.host}:{place.port}: {refusal}", "Take another port on all nodes."
    raise ConfigError(message, where=RENDEZVOUS, fix=fix)


def _refusal_to_bind(family: int, kind: int, protocol: int, address: Any) -> OSError | None:
    """What the system says of listening there; None where it can be."""
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as what listens there sets it
            probe.bind(address)
    except OSError as error:
        return error
    return None


def meeting_folder(home: Path, place: Place) -> Path:
    """Where the nodes of a rendezvous meet; it is made where it is missing."""
    folder = home / NODES / f"{place.host.replace(':', '.')}-{place.port}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def hosting(home: Path, execution: ExecutionSettings) -> Iterator[None]:
    """Hold the rendezvous that the environment names for as long as the run of node 0 lasts, and say how it ended;
    nothing where it names none, or no stage is started on several nodes by hand.

    Raises:
        ConfigError: another run holds it, or this is not node 0.
    """
    refuse_other_nodes()
    place = rendezvous()
    if place is None or nodes_by_hand(execution) == 1:
        yield
        return
    timeout()
    folder = meeting_folder(home, place)
    with open_lock(folder / LOCK) as lock:
        _take_lock(lock, place)
        _forget_attempts(folder)
        run = this_process()
        write_holder(lock, run)
        failed = True
        try:
            yield
            failed = False
        finally:
            with contextlib.suppress(OSError):  # the lock is free then, and the other nodes take that for a failure
                RunEnd(failed=failed, run=run, ended=time.time()).write(folder / END)
                _forget_attempts(folder)
                write_holder(lock, "")


def _take_lock(lock: TextIO, place: Place) -> None:
    deadline = time.monotonic() + LOOKED_AT_S
    while not try_lock(lock):
        if time.monotonic() > deadline:
            holder = read_holder(lock) or "another run"
            raise ConfigError(f"{holder} is node 0 of {place.host}:{place.port}", fix="Take another port.")
        time.sleep(POLL_SECONDS / 10)


def _forget_attempts(folder: Path) -> None:
    for file in (folder / INVITATION, *folder.glob("*.joined"), *folder.glob("*.refused")):
        file.unlink(missing_ok=True)


def answer(folder: Path, attempt: str, rank: int, kind: str) -> Path:
    """The file in which a node answers an invitation: `joined`, or `refused`."""
    return folder / f"{attempt}-{rank}.{kind}"


def invite(home: Path, invitation: Invitation, nodes: int, say: Say, check: Callable[[], None]) -> Place:
    """Wait until the other nodes take part in an attempt, and return the place of this one.

    Args:
        check: called again and again while waiting; it may raise to give up.

    Raises:
        StageFailed: a node cannot take part, or has not come in time.
    """
    place = rendezvous()
    assert place is not None  # preflight has seen it
    folder, attempt, stage = meeting_folder(home, place), invitation.attempt, invitation.stage
    _forget_attempts(folder)
    run = (folder / LOCK).read_text(encoding="utf-8").strip()
    invitation.model_copy(update={"run": run}).write(folder / INVITATION)
    deadline = time.monotonic() + timeout()
    said: list[int] = []
    try:
        while missing := [r for r in range(1, nodes) if not answer(folder, attempt, r, "joined").exists()]:
            check()
            names = ", ".join(map(str, missing))
            for rank in missing:
                refusal = Refusal.read(answer(folder, attempt, rank, "refused"))
                if refusal is not None:
                    fix = "Put that right, and start the same command on all nodes."
                    raise StageFailed(stage, refusal.why, fix=fix)
            if time.monotonic() > deadline:
                fix = f"Start the same command there with {RANK} set to its number. {TIMEOUT} is how long nodes wait."
                raise StageFailed(stage, f"node {names} did not take part within {timeout():g} s", fix=fix)
            if missing != said:
                said = missing
                say(
                    f"is node 0, and waits for node {names}: start the same command there with {RANK} set to its number"
                )
            time.sleep(POLL_SECONDS)
    except BaseException:
        withdraw(home, attempt)
        raise
    return place


def withdraw(home: Path, attempt: str) -> None:
    """Take back the invitation to an attempt that is over, so that no node waits for its beginning."""
    place = rendezvous()
    if place is None:
        return
    file = meeting_folder(home, place) / INVITATION
    invitation = Invitation.read(file)
    if invitation is not None and invitation.attempt == attempt:
        file.unlink(missing_ok=True)
