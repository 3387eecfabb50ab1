"""A node other than node 0 that was started by hand (pipeline/launch/by_hand.py).

It takes part in the stages of node 0's run that have several nodes, and ends when that run ends.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from evaluation.harness.child_processes import wait_or_kill
from pipeline.config.execution import ExecutionSettings
from pipeline.core.errors import EXIT_STAGE_FAILED, ConfigError, UserError
from pipeline.core.interpreters import environment_of, link_code
from pipeline.core.locks import open_lock, try_lock, unlock
from pipeline.core.processes import MARK, kill_all, new_mark
from pipeline.launch.by_hand import (
    END,
    INVITATION,
    LOCK,
    POLL_SECONDS,
    RANK,
    TIMEOUT,
    Invitation,
    Refusal,
    RunEnd,
    Say,
    answer,
    meeting_folder,
    nodes_by_hand,
    timeout,
)
from pipeline.launch.commands import Place, launch_command
from pipeline.launch.environment import stage_environment
from pipeline.launch.gpus import lease
from pipeline.launch.machine import visible_gpus
from pipeline.launch.node import NODES, host_name

SAVES_S = 3600.0
"""How long the processes of a node that is told to stop may take; the run of node 0 ends them sooner."""
RECENT_S = 60.0
"""A run that ended so long before this node was started may be the one that it was started for: node 0 was faster."""


def take_part(home: Path, place: Place, execution: ExecutionSettings, say: Say) -> None:
    """Take part in the stages of the run of node 0 until it ends.

    Raises:
        ConfigError: no stage has so many nodes, or another machine has this one's number.
        UserError: that run did not begin in time, failed, was stopped or was killed.
    """
    nodes = nodes_by_hand(execution)
    if place.rank >= nodes:
        what = f"at most {nodes} nodes, from 0" if nodes > 1 else "several nodes that are started by hand"
        fix = "Start it on the nodes that execution.launch asks for; on node 0 alone where that is one."
        raise ConfigError(f"{RANK} is {place.rank}, and no stage has {'more: ' if nodes > 1 else ''}{what}", fix=fix)
    folder = meeting_folder(home, place)
    with open_lock(folder / LOCK) as lock:
        end = _Follower(folder, lock, place, execution.threads, say).follow()
    if end is None or end.failed:
        raise _failed("the run of node 0 failed or was stopped", fix="It says why; start it again on all nodes.")
    say("the run of node 0 is done")


def _failed(message: str, fix: str) -> UserError:
    error = UserError(message, fix=fix)
    error.exit_code = EXIT_STAGE_FAILED
    return error


class _GivenUp(Exception):
    """The attempt that this node was about to take part in is over."""


class _Follower:
    """This node, and the run of node 0 as its files show it."""

    def __init__(self, folder: Path, lock: TextIO, place: Place, threads: int | None, say: Say) -> None:
        self._folder, self._lock, self._place, self._threads, self._say = folder, lock, place, threads, say
        self._run = ""

    def follow(self) -> RunEnd | None:
        """Take part until the run of node 0 ends, and return how; None where it was killed."""
        self._say(f"node {self._place.rank} of {self._place.host}:{self._place.port}: waits for the run of node 0")
        before = self._end()
        ended = self._wait_for_run(before)
        if ended is not None:
            return ended
        self._say(f"takes part in the run of {self._holder() or 'node 0'}")
        done = ""
        while not self._is_over():
            invitation = Invitation.read(self._folder / INVITATION)
            if invitation is not None and invitation.attempt != done and invitation.run == self._run:
                done = invitation.attempt
                if self._place.rank < invitation.settings.nodes:
                    with contextlib.suppress(_GivenUp):
                        self._take_part_in(invitation)
                else:
                    self._say(f"{invitation.stage} has {invitation.settings.nodes} nodes, without this one")
            time.sleep(POLL_SECONDS)
        end = self._end()
        known = end is not None and (end.run == self._run if self._run else end != before)
        return end if known else None

    def _wait_for_run(self, before: RunEnd | None) -> RunEnd | None:
        """Wait until node 0's run is there; how it ended, where it has done so already.

        Args:
            before: how the last run had ended when this node was started.
        """
        started, limit = time.monotonic(), timeout()
        recent = before is not None and abs(time.time() - before.ended) < RECENT_S
        while self._is_free():
            waited, end = time.monotonic() - started, self._end()
            if end is not None and (end != before or (recent and waited > RECENT_S)):
                return end
            if waited > limit:
                message = f"node 0 did not start its run within {limit:g} s, as {self._folder} shows"
                fix = f"Start the same command there, with a home that both share. {TIMEOUT} is how long nodes wait."
                raise _failed(message, fix=fix)
            time.sleep(POLL_SECONDS)
        return None

    def _is_free(self) -> bool:
        if not try_lock(self._lock, shared=True):
            return False
        unlock(self._lock)
        return True

    def _is_over(self) -> bool:
        """Whether the run has ended; another one may have begun since."""
        if self._is_free():
            return True
        holder = self._holder()
        self._run = self._run or holder
        return holder not in ("", self._run)

    def _holder(self) -> str:
        """Who holds the rendezvous. The file is opened anew: NFS then asks the server."""
        return (self._folder / LOCK).read_text(encoding="utf-8").strip()

    def _end(self) -> RunEnd | None:
        return RunEnd.read(self._folder / END)

    def _take_part_in(self, invitation: Invitation) -> None:
        """Run this node's processes of one attempt, on GPUs that they take for themselves."""
        launch, machine, stage = invitation.settings, invitation.machine, invitation.stage
        environment = stage_environment(
            machine.device,
            self._threads or machine.threads_given,
            hub=invitation.hub,
            deterministic=machine.deterministic,
        )
        if invitation.python is not None:
            if not os.access(invitation.python, os.X_OK):
                self._refuse(invitation, f"execution.python names {invitation.python}, which is not on this machine")
                return
            code = link_code(Path(invitation.work) / f"node-{self._place.rank}", invitation.program)
            environment = environment_of(invitation.python, code, environment)
        check = self._check_of(invitation.attempt)
        with contextlib.ExitStack() as held:
            locks: tuple[int, ...] = ()
            if machine.device == "cuda":
                visible = visible_gpus()
                if len(visible) < launch.processes:
                    self._refuse(
                        invitation, f"{launch.processes} processes need as many GPUs, and it has {len(visible)}"
                    )
                    return
                who = f"node {self._place.rank} of {stage}"
                gpus = held.enter_context(lease(visible, launch.processes, who, self._say, check))
                environment["CUDA_VISIBLE_DEVICES"], locks = ",".join(gpus.gpus), gpus.descriptors
            if self._join(invitation, check):
                self._run_processes(invitation, environment, locks)

    def _check_of(self, attempt: str) -> Callable[[], None]:
        """What raises `_GivenUp` as soon as node 0 has ended, or given the attempt up."""
        file = self._folder / INVITATION

        def check() -> None:
            current = Invitation.read(file)
            other = current.attempt != attempt if current is not None else not file.exists()
            if other or self._is_over():
                raise _GivenUp

        return check

    def _refuse(self, invitation: Invitation, why: str) -> None:
        """Have node 0 say why this one cannot take part, and say it here."""
        why = f"node {self._place.rank} ({host_name()}) cannot take part: {why}"
        self._say(why)
        Refusal(why=why).write(answer(self._folder, invitation.attempt, self._place.rank, "refused"))

    def _join(self, invitation: Invitation, check: Callable[[], None]) -> bool:
        """Say that this node takes part, and wait until the attempt begins; whether it takes part.

        Raises:
            ConfigError: another machine takes part under the same number.
        """
        joined, other = answer(self._folder, invitation.attempt, self._place.rank, "joined"), ""
        began = Path(invitation.work) / NODES / invitation.attempt / "0.beat"
        try:
            with open(joined, "x", encoding="utf-8") as file:
                file.write(host_name())
        except FileExistsError as error:
            if began.exists():  # this node's command was started again before node 0 found that it was lost
                self._say(f"{invitation.stage} is at work; waits for what comes next")
                return False
            check()
            with contextlib.suppress(OSError):  # it may be leaving at this moment
                other = joined.read_text(encoding="utf-8")
            message = f"node {self._place.rank} is {other or 'another machine'} already"
            fix = f"Give each machine a number of its own ({RANK}). Where that command was killed, remove {joined}"
            raise ConfigError(message, fix=fix) from error
        try:
            while not began.exists():  # while others are missing
                check()
                time.sleep(POLL_SECONDS)
        except BaseException:
            joined.unlink(missing_ok=True)
            raise
        return True

    def _run_processes(self, invitation: Invitation, environment: dict[str, str], locks: tuple[int, ...]) -> None:
        self._say(f"{invitation.stage} begins")
        mark, spec = new_mark(), Path(invitation.work) / "spec.json"
        process = subprocess.Popen(
            launch_command(
                invitation.settings,
                invitation.program,
                spec,
                invitation.attempt,
                self._place,
                invitation.python or sys.executable,
            ),
            stdin=subprocess.DEVNULL,
            env={**environment, MARK: mark},
            start_new_session=True,
            pass_fds=locks,
        )
        try:
            code = process.wait()
            self._say(f"{invitation.stage} has ended{f' with exit code {code}' if code else ''}")
        except BaseException:
            self._say("asks all nodes to save their state and to stop")
            process.terminate()
            wait_or_kill(process, SAVES_S)
            raise
        finally:
            kill_all(process.pid, mark)
