"""Starting one stage in a process of its own, following its progress, and ending it in order."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from evaluation.harness.child_processes import wait_or_kill
from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import Interrupted, StageFailed
from pipeline.core.processes import MARK, kill_all, new_mark
from pipeline.launch import by_hand, slurm
from pipeline.launch.commands import Place, launch_command
from pipeline.launch.grace import Grace
from pipeline.launch.node import ENDS_S, LOST_S, NODES, STOP, ends_of_nodes, node_log
from stages.harness.disk import FREE_SOME, RESERVED_BYTES
from stages.harness.documents import EVENT, ErrorDocument, Note, Progress, Spec, StageResult
from stages.harness.process import EXIT_STOPPED, STOPPED

POLL_SECONDS = 0.1
NO_LIMIT_S = 7 * 86400
FAILED_S = 60.0
"""How long the other processes of a stage have to end by themselves when one of them has failed."""
OnEvent = Callable[[Note | Progress], None]


@dataclasses.dataclass(frozen=True)
class Launch:
    """How one attempt at a stage is started, and when it is ended."""

    stage: str
    """Its name, for messages."""
    program: str
    """The package that is run: `python -m PROGRAM spec.json`."""
    work: Path
    """Folder of the attempt: its spec, log, events, state and payload."""
    environment: dict[str, str]
    locks: tuple[int, ...]
    """File descriptors that the process inherits, so that an orphan keeps its locks."""
    grace_s: float | None
    """Seconds that a stopped stage has to save its state before it is killed; None: as many as its steps and its state
    take (pipeline/launch/grace.py)."""
    steps_to_a_stop: int = 1
    """Steps that may pass before it can stop."""
    saved_bytes: int = 0
    """Of the state that it saves; 0 where that is not known."""
    settings: LaunchSettings = dataclasses.field(default_factory=LaunchSettings)
    python: str = sys.executable
    """The interpreter that runs the program; `environment` leads it to this project's code."""
    time_limit_s: float | None = None
    """Seconds that the stage may run; what a Slurm job waits in the queue does not count."""
    home: Path | None = None
    """Where nodes meet that are no Slurm job's (pipeline/launch/by_hand.py)."""
    stopping: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Stops the stage when it is set."""

    @property
    def log(self) -> Path:
        return self.work / "stage.log"

    def grace(self) -> Grace:
        """How long it may take to stop, before anything has been seen of it."""
        return Grace(self.grace_s, self.steps_to_a_stop, self.saved_bytes)


def run_process(launch: Launch, spec: Spec, on_event: OnEvent) -> StageResult:
    """Run a stage's program to its end and return its result. All its output goes to its log.

    When this function is left by an exception (Ctrl-C, SIGTERM, a cancelled run), `stopping` is set, or the time limit
    is reached, the stage is asked to stop, has the seconds of its grace to save its state, and is then killed with all
    it started. A job that an earlier run left in `work`, because the machine that followed it went down, is ended first
    in the same way.

    Raises:
        StageFailed: it ended without a result, or at its time limit.
        Interrupted: it was stopped on request.
    """
    launch.work.mkdir(parents=True, exist_ok=True)
    _end_earlier_job(launch, on_event)
    _prepare(launch, spec)
    mark = new_mark()
    place = _invite(launch, spec, mark, on_event) if launch.settings.nodes > 1 else None
    process = _start(launch, mark, place)
    events, grace = _Tail(launch.work / "events.jsonl"), launch.grace()

    def tell(event: Note | Progress) -> None:
        grace.see(event)
        on_event(event)

    try:
        _follow(process, launch, events, tell)
    except BaseException:
        on_event(Note(message=f"asked to stop; it has {grace.seconds:.0f} s to save its state"))
        process.terminate()
        wait_or_kill(process, grace.seconds)
        raise
    finally:
        if place is not None and launch.home is not None:
            by_hand.withdraw(launch.home, mark)
        survivors = kill_all(process.pid, mark)
        if survivors:
            on_event(Note(message=f"processes {survivors} do not end, and may still hold its GPUs and its lock"))
        job = slurm.end_job(launch.work, grace_s=0)  # given up, or its watcher was killed: the job itself does not know
        if job is not None:
            on_event(Note(message=f"Slurm job {job} could not be cancelled, and may still run: scancel {job}"))
    for event in events.read():
        on_event(event)
    return _result(launch, process.returncode)


def _end_earlier_job(launch: Launch, on_event: OnEvent) -> None:
    """Raises `StageFailed` where it may still run: it would write into what the new attempt writes into."""
    file = launch.work / slurm.JOB
    if not file.is_file():
        return
    grace = launch.grace()
    for event in _Tail(launch.work / "events.jsonl").read():
        grace.see(event)
    on_event(Note(message=f"ends the Slurm job of an earlier run; it has {grace.seconds:.0f} s to save its state"))
    job = slurm.end_job(launch.work, grace.seconds)
    if job is not None:
        raise StageFailed(
            launch.stage,
            f"Slurm job {job} of an earlier run may still be at work in {launch.work}",
            fix=f"Where Slurm answers: scancel {job}. When the job is gone, remove {file} and run again.",
        )


def _prepare(launch: Launch, spec: Spec) -> None:
    """Remove what an earlier attempt said about itself, and a payload that nothing can resume; write the spec."""
    work = launch.work
    said = (work / "error.json", *work.glob(f"{STOPPED}.*"), work / slurm.STARTED, work / "events.jsonl")
    for file in said:
        file.unlink(missing_ok=True)
    shutil.rmtree(work / NODES, ignore_errors=True)
    if not (work / "state").is_dir() or not any((work / "state").iterdir()):
        shutil.rmtree(work / "out", ignore_errors=True)
    (work / "out").mkdir(exist_ok=True)
    filled_in = {"output": str(work / "out"), "state": str(work / "state"), "parent": os.getpid()}
    spec.model_copy(update=filled_in).write(work / "spec.json")


def _invite(launch: Launch, spec: Spec, attempt: str, on_event: OnEvent) -> Place | None:
    """Wait for the nodes that share an attempt, unless Slurm brings them together; this one's place among them."""
    if launch.settings.kind == "slurm":
        return None

    def check() -> None:
        if launch.stopping.is_set():
            raise _stopped(launch)

    assert launch.home is not None  # the executor gives it
    invitation = by_hand.Invitation(
        attempt=attempt,
        stage=launch.stage,
        program=launch.program,
        work=str(launch.work.resolve()),
        launch=launch.settings.model_dump(),
        machine=spec.machine,
        hub="HF_HUB_OFFLINE" not in launch.environment,
        python=launch.python if launch.python != sys.executable else None,
    )
    nodes = launch.settings.nodes
    return by_hand.invite(launch.home, invitation, nodes, lambda text: on_event(Note(message=text)), check)


def _start(launch: Launch, mark: str, place: Place | None) -> subprocess.Popen[bytes]:
    # torchrun gives its processes 30 s of its own accord, and then kills them in the middle of a checkpoint. What they
    # may take is not known yet, so it is left to `run_process` to end them.
    limit = NO_LIMIT_S if launch.grace_s is None else max(1, int(launch.grace_s) - 1)
    shutdown = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(limit)}
    with open(launch.log, "ab") as output:
        return subprocess.Popen(
            launch_command(launch.settings, launch.program, launch.work / "spec.json", mark, place, launch.python),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**launch.environment, **shutdown, MARK: mark},
            start_new_session=True,
            pass_fds=launch.locks,
        )


def _follow(process: subprocess.Popen[bytes], launch: Launch, events: _Tail, on_event: OnEvent) -> None:
    """Report what the stage says until its process ends. Raises where it has to be stopped."""
    started = time.monotonic() if launch.settings.kind != "slurm" else None
    failed: float | None = None
    patience = FAILED_S if launch.settings.nodes == 1 else FAILED_S + LOST_S + ENDS_S  # they find out which one it was
    while process.poll() is None:
        if failed is None and launch.settings.world > 1 and (launch.work / "error.json").is_file():
            failed = time.monotonic()
        if failed is not None and time.monotonic() > failed + patience:  # peers that wait for the one that failed
            wait_or_kill(process, 0)
            return
        for event in events.read():
            on_event(event)
        if launch.stopping.is_set():
            raise _stopped(launch)
        if started is None and (launch.work / slurm.STARTED).is_file():
            started = time.monotonic()
        limit = launch.time_limit_s
        if limit is not None and started is not None and time.monotonic() > started + limit:
            raise StageFailed(
                launch.stage,
                f"was ended after its time limit of {limit:g} s; what it had saved is kept",
                fix=f"Raise execution.time_limit_s.{launch.stage} if it needs longer; if it hung, see the end of "
                f"{launch.log}",
                log=str(launch.log),
            )
        time.sleep(POLL_SECONDS)


def _result(launch: Launch, code: int) -> StageResult:
    """What an ended stage has to show. Raises where that is no result."""
    work = launch.work
    # An error comes first: torchrun stops the other processes when one has failed, and each of them then says that it
    # was stopped. A negative code: asked before it could listen. The files: asked while torchrun was between us, which
    # ends with a code of its own.
    all_stopped = all((work / f"{STOPPED}.{rank}").is_file() for rank in range(launch.settings.world))
    stopped = code in (EXIT_STOPPED, -signal.SIGINT, -signal.SIGTERM) or all_stopped
    # Nodes hear of a stop one after the other, and in one that has not the processes may fail because others left.
    # The job of a lost node is cancelled, and the other nodes then take that for a stop.
    lost = any(end.lost for end in ends_of_nodes(work).values())
    asked = next((work / NODES).glob(f"*/{STOP}"), None) is not None and not lost
    if code != 0 and (asked or (stopped and not lost and not (work / "error.json").is_file())):
        raise _stopped(launch)
    file = work / "out" / "record" / "result.json"
    if code != 0 or not file.is_file():
        raise _failure(launch, code)
    result = StageResult.read(file)
    if result is None or not result.proof:
        what = f"left a {file} that cannot be read" if result is None else "ended without a completion proof"
        raise StageFailed(launch.stage, what, log=str(launch.log), fix=f"See the end of its log: {launch.log}")
    for log in _logs(launch):
        shutil.copyfile(log, file.with_name(log.name))
    return result


def _stopped(launch: Launch) -> Interrupted:
    return Interrupted(
        f"stage {launch.stage} was stopped; what it had saved is kept", fix="Run the same command again to continue."
    )


def _logs(launch: Launch) -> list[Path]:
    """What each node of the stage has printed; its own log, where it runs on one."""
    logs = (node_log(launch.work, rank) for rank in range(launch.settings.nodes))
    return [log for log in logs if log.is_file()]


def _failure(launch: Launch, code: int) -> StageFailed:
    """Why a stage failed: as it says itself, or as its exit code says, and on which of several nodes."""
    log = ", ".join(map(str, _logs(launch)))
    error = ErrorDocument.read(launch.work / "error.json")
    ends = ends_of_nodes(launch.work)
    if lost := next((end.lost for end in ends.values() if end.lost), ""):
        then = f"; then: {error.message}" if error is not None else ""
        message = f"{lost} was lost: its processes were killed, or the machine does not answer{then}"
        fix = f"What was saved is kept: the same command continues from there. See the logs: {log}"
        return StageFailed(launch.stage, message, fix=fix, log=log, cause="node")
    first = [f"node {rank} ({end.host})" for rank, end in ends.items() if end.code and not end.followed]
    if error is not None and launch.settings.nodes > 1:
        where = f" ({', '.join(first)} failed)" if first else ""
        fix = f"{error.fix or 'See the logs.'} The logs: {log}"
        return StageFailed(launch.stage, f"{error.message}{where}", fix=fix, log=log, cause=error.cause)
    if error is not None:
        return StageFailed(
            launch.stage, error.message, fix=error.fix or f"See the log: {log}", log=log, cause=error.cause
        )
    if code == -signal.SIGKILL:
        message = "was killed by SIGKILL (out of memory?)"
    elif code < 0:
        message = f"was killed by {signal.Signals(-code).name}"
    else:
        message = f"ended with exit code {code} and no result{': ' if first else ''}{', '.join(first)}"
    fix = f"See the end of its log: {log}"
    if shutil.disk_usage(launch.work).free < RESERVED_BYTES:  # some libraries end the process where they cannot write
        message, fix = f"{message}: no room is left below {launch.work}", f"{FREE_SOME}. {fix}"
    return StageFailed(launch.stage, message, fix=fix, log=log)


class _Tail:
    """New complete lines of a growing JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> list[Note | Progress]:
        if not self._path.is_file():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [event for line in complete.splitlines() if (event := _event(line)) is not None]


def _event(line: bytes) -> Note | Progress | None:
    """An event, or None for a line that is none: no line of progress is worth a stage."""
    try:
        return EVENT.validate_json(line)
    except ValueError:
        return None
