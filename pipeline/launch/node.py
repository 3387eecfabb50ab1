"""One node's part of a stage that runs on several: `python -m pipeline.launch.node SPEC MODULE PYTHON LAUNCH ATTEMPT
RANK HOST PORT`.

Starts the stage's processes on this machine and watches over them and the other nodes. The nodes tell each other what
they do through files in the stage's work folder, which all of them share: torchrun's static rendezvous notices no other
node's end, and a process that waits for one that is gone may wait for half an hour.

- Each node counts in `RANK.beat` every few seconds. One that has not counted for `LOST_S` seconds is lost.
- `RANK.exit` says how a node's processes ended. Where one fails or is lost, the others end theirs.
- `stop` asks all of them to save their state and leave. Any node may be told to (SIGTERM).

What the processes of other nodes than the first one print is in `stage.node-RANK.log`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pydantic import TypeAdapter

from pipeline.config.execution import LaunchSettings
from pipeline.core.processes import MARK, kill_all, new_mark
from pipeline.launch.commands import Place, distributed_command, dying_with
from stages.harness.documents import Document

NODES = "nodes"
"""In the work folder: a folder for each attempt, with what its nodes say."""
STOP = "stop"
POLL_SECONDS = 0.5
BEAT_SECONDS = 2.0
LOST_S = 60.0
"""A shared file system may show a change late, and stand still for a while."""
START_S = 300.0
"""How long after the first node another one may start: Slurm prepares each of them by itself."""
ENDS_S = 10.0
"""How long the processes of a node have to end when another node has failed: what they wait for does not come."""


class NodeExit(Document):
    """`RANK.exit`: how the processes of one node ended."""

    host: str
    code: int
    lost: str = ""
    """The other node that was found to be lost, with its host; empty where none was."""
    followed: bool = False
    """Whether they were ended because another node had failed."""


def node_log(work: Path, rank: int) -> Path:
    """What the processes of a node print; those of node 0 into the stage's own log."""
    return work / ("stage.log" if rank == 0 else f"stage.node-{rank}.log")


def ends_of_nodes(work: Path) -> dict[int, NodeExit]:
    """Rank -> how it ended, of the nodes of the attempt in a work folder that have said so."""
    ends = {int(file.stem): NodeExit.read(file) for file in sorted((work / NODES).glob("*/*.exit"))}
    return {rank: end for rank, end in ends.items() if end is not None}


def host_name() -> str:
    """This machine, as Slurm calls it, or as it calls itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


class _Peer:
    """Another node, as its files show it."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._beat, self._exit, self.rank = folder / f"{rank}.beat", folder / f"{rank}.exit", rank
        self._seen, self._since, self._patience = "", time.monotonic(), START_S

    @property
    def name(self) -> str:
        host = self._seen.partition(" ")[0]
        return f"node {self.rank} ({host})" if host else f"node {self.rank}"

    def code(self) -> int | None:
        """How it ended; None while it has not said."""
        end = NodeExit.read(self._exit)
        return None if end is None else end.code

    def is_lost(self) -> bool:
        """Whether it has counted for too long no further. Its file is opened anew: NFS then asks the server."""
        try:
            beat = self._beat.read_text(encoding="utf-8")
        except OSError:
            beat = self._seen
        if beat != self._seen:
            self._seen, self._since, self._patience = beat, time.monotonic(), LOST_S
        return time.monotonic() > self._since + self._patience


class Node:
    """The processes of this machine, and the other nodes."""

    def __init__(self, work: Path, attempt: str, rank: int, nodes: int) -> None:
        self.folder, self.log, self.rank = work / NODES / attempt, node_log(work, rank), rank
        self.folder.mkdir(parents=True, exist_ok=True)
        self.peers = [_Peer(self.folder, other) for other in range(nodes) if other != rank]
        self.lost, self.followed, self._asked = "", False, False
        self._beats, self._next_beat = 0, 0.0

    def run(self, command: list[str]) -> int:
        """Run the command that starts this node's processes to its end, and return its exit code."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._ask_all_to_stop)
        mark = os.environ.get(MARK) or new_mark()
        self._look()
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                dying_with(os.getpid(), command),
                stdin=subprocess.DEVNULL,
                stdout=None if self.rank == 0 else log,
                stderr=None if self.rank == 0 else subprocess.STDOUT,
                # How long its processes may take to save their state is for the orchestrator to say, and no 30 s.
                env={"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(7 * 86400), **os.environ, MARK: mark},
                start_new_session=True,
            )
        told, ends_by = False, float("inf")
        try:
            while child.poll() is None:
                time.sleep(POLL_SECONDS)
                failed = self._look()
                if not told and (failed or self._stopping):
                    told, self.followed = True, failed and not self._stopping
                    child.terminate()
                if self.followed or self.lost:  # what they wait for does not come, to save a state neither
                    ends_by = min(ends_by, time.monotonic() + ENDS_S)
                if time.monotonic() > ends_by:
                    break
        finally:
            kill_all(child.pid, mark)
        code = child.wait()
        code = 128 - code if code < 0 else code
        self._say_end(code)
        while code != 0 and not self.followed and not self._stopping and self._others_at_work():
            time.sleep(POLL_SECONDS)  # it may have failed because another one is gone, which shows later
        self._say_end(code)
        return code

    def _say_end(self, code: int) -> None:
        end = NodeExit(host=host_name(), code=code, lost=self.lost, followed=self.followed)
        try:
            end.write(self.folder / f"{self.rank}.exit")
        except OSError as error:  # the others will find that this node is lost
            print(f"node {self.rank} ended with {code}, and cannot say so: {error}", file=sys.stderr)

    @property
    def _stopping(self) -> bool:
        try:
            return self._asked or (self.folder / STOP).exists()
        except OSError:  # of a file system that stands still; it is asked again
            return False

    def _ask_all_to_stop(self, signum: int, frame: FrameType | None) -> None:
        self._asked = True
        self._pass_on()

    def _pass_on(self) -> None:
        """Tell the other nodes to stop, where this one was told; again, where the file system did not take it."""
        if self._asked:
            with contextlib.suppress(OSError):
                (self.folder / STOP).touch()

    def _look(self) -> bool:
        """Count, and look whether another node has failed."""
        if time.monotonic() < self._next_beat:
            return False
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._beats += 1
        beat = self.folder / f"{self.rank}.beat"
        part = beat.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk may have room again: `LOST_S` is how long it may take
            part.write_text(f"{host_name()} {self._beats}", encoding="utf-8")
            part.replace(beat)
        self._pass_on()
        ended = {peer: peer.code() for peer in self.peers}
        lost = [peer.name for peer, code in ended.items() if peer.is_lost() and code is None]
        self.lost = self.lost or ", ".join(lost)
        return bool(lost) or any(code not in (None, 0) for code in ended.values())

    def _others_at_work(self) -> bool:
        return not self._look() and any(peer.code() is None for peer in self.peers)


def main(spec: Path, module: str, python: str, launch: LaunchSettings, attempt: str, place: Place) -> int:
    """Run this node's processes of a stage, and return the exit code of what started them."""
    node = Node(spec.parent, attempt, place.rank, launch.nodes)
    return node.run(distributed_command(launch, module, spec, place, python))


if __name__ == "__main__":
    file, module, python, settings, attempt, rank, host, port = sys.argv[1:]
    launch = TypeAdapter(LaunchSettings).validate_python(json.loads(settings))
    raise SystemExit(main(Path(file), module, python, launch, attempt, Place(int(rank), host, int(port))))
