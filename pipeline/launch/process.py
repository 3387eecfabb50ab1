"""Starting one stage in a process of its own, following its progress, and ending it in order."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import Interrupted, StageFailed
from pipeline.core.processes import MARK, kill_all, new_mark
from pipeline.launch import slurm
from pipeline.launch.commands import launch_command
from pipeline.plan.code import ROOT
from stages.harness.documents import EVENT, ErrorDocument, Note, Progress, Spec, StageResult
from stages.harness.process import EXIT_STOPPED, STOPPED

POLL_SECONDS = 0.1


def stage_environment(device: str, threads: int | None, *, hub: bool) -> dict[str, str]:
    """The environment of a stage process. Only what must be set before a library is imported, or keeps libraries quiet and offline.

    `threads`: CPU threads of the process; None where the machine it will run on is not known yet (pipeline/launch/slurm.py).
    """
    env = dict(os.environ)
    if threads is not None:
        env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    env.update(
        # Threads that wait must sleep: by default they spin, and where anything else runs on the cores a step takes twenty times as long.
        OMP_WAIT_POLICY="PASSIVE",
        # torch.distributed inside a stage (vLLM beside the trainer) would else meet a second pipeline of this machine at one fixed port.
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
        # The stage runs the code whose digests are in its key, also where another checkout is the one installed.
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")])),
        PYTHONSAFEPATH="1",
        PYTHONHASHSEED="0",
        PYTHONUNBUFFERED="1",
        TOKENIZERS_PARALLELISM="false",
        DO_NOT_TRACK="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        VLLM_NO_USAGE_STATS="1",
    )
    if not hub:
        env.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    if device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def run_process(
    name: str,
    module: str,
    spec: Spec,
    work: Path,
    environment: dict[str, str],
    on_event: Callable[[Note | Progress], None],
    *,
    locks: tuple[int, ...],
    grace_s: float,
    launch: LaunchSettings = LaunchSettings(),  # noqa: B008 - frozen
    time_limit_s: float | None = None,
    stopping: threading.Event | None = None,
) -> StageResult:
    """Run `python -m MODULE SPEC.json` to its end and return its result.

    All its output goes to `work/stage.log`; it inherits the file descriptors of `locks`. Raises `StageFailed`, or `Interrupted` when the
    stage was stopped on request. When this function is left by an exception (Ctrl-C, SIGTERM, a cancelled run), `stopping` is set, or the
    time limit is reached, the stage is asked to stop, has `grace_s` seconds to save its state, and is then killed with all it started. The
    time limit is of the time it runs: what a Slurm job waits in the queue does not count. A job that an earlier run left in `work`, because
    the machine that followed it went down, is ended first in the same way.
    """
    work.mkdir(parents=True, exist_ok=True)
    log, events = work / "stage.log", work / "events.jsonl"
    _end_earlier_job(name, work, grace_s, on_event)
    for leftover in (work / "error.json", *work.glob(f"{STOPPED}.*"), work / slurm.STARTED, events):
        leftover.unlink(missing_ok=True)
    if not (work / "state").is_dir() or not any((work / "state").iterdir()):
        shutil.rmtree(work / "out", ignore_errors=True)  # a half-made payload that nothing can resume
    (work / "out").mkdir(exist_ok=True)
    folders = {"output": str(work / "out"), "state": str(work / "state")}
    spec.model_copy(update={**folders, "parent": os.getpid()}).write(work / "spec.json")
    mark = new_mark()
    # torchrun gives its processes 30 s of its own accord, and then kills them in the middle of a checkpoint that may take `grace_s`.
    own = {MARK: mark, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(grace_s) - 1))}
    with open(log, "ab") as output:
        process = subprocess.Popen(
            launch_command(launch, module, work / "spec.json"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, **own},
            start_new_session=True,
            pass_fds=locks,
        )
    tail = _Tail(events)
    runs_since = time.monotonic() if launch.kind != "slurm" else None
    try:
        while process.poll() is None:
            for event in tail.read():
                on_event(event)
            if stopping is not None and stopping.is_set():
                raise Interrupted(
                    f"stage {name} was stopped; what it had saved is kept",
                    fix="Run the same command again to continue.",
                )
            if runs_since is None and (work / slurm.STARTED).is_file():
                runs_since = time.monotonic()
            if time_limit_s is not None and runs_since is not None and time.monotonic() > runs_since + time_limit_s:
                raise StageFailed(
                    name,
                    f"was ended after its time limit of {time_limit_s:g} s; what it had saved is kept",
                    fix=f"Raise execution.time_limit_s.{name} if it needs longer; if it hung, see the end of {log}",
                    log=str(log),
                )
            time.sleep(POLL_SECONDS)
    except BaseException:
        on_event(Note(message=f"asked to stop; it has {grace_s:.0f} s to save its state"))
        _stop(process, grace_s)
        raise
    finally:
        left = kill_all(process.pid, mark)  # what the stage left behind
        if left:
            on_event(Note(message=f"processes {left} do not end, and may still hold its GPUs and its lock"))
        job = slurm.end_job(work, grace_s=0)  # given up, or its watcher was killed: the job itself does not know
        if job is not None:
            on_event(Note(message=f"Slurm job {job} could not be cancelled, and may still run: scancel {job}"))
    for event in tail.read():
        on_event(event)
    # An error comes first: torchrun stops the other processes when one has failed, and each of them then says that it was stopped.
    # A negative code: asked before it could listen. The files: asked while torchrun was between us, which ends with a code of its own.
    all_stopped = all((work / f"{STOPPED}.{rank}").is_file() for rank in range(launch.processes))
    stopped = process.returncode in (EXIT_STOPPED, -signal.SIGINT, -signal.SIGTERM) or all_stopped
    if process.returncode != 0 and stopped and not (work / "error.json").is_file():
        raise Interrupted(
            f"stage {name} was stopped; what it had saved is kept", fix="Run the same command again to continue."
        )
    file = work / "out" / "record" / "result.json"
    if process.returncode != 0 or not file.is_file():
        raise _failure(name, process.returncode, work, log)
    result = StageResult.model_validate_json(file.read_bytes())
    if not result.proof:
        raise StageFailed(name, "ended without a completion proof", log=str(log), fix=f"See {log}")
    shutil.copyfile(log, work / "out" / "record" / "stage.log")
    return result


def _end_earlier_job(name: str, work: Path, grace_s: float, on_event: Callable[[Note | Progress], None]) -> None:
    """Raises `StageFailed` where it may still run: it would write into what the new attempt writes into."""
    if not (work / slurm.JOB).is_file():
        return
    on_event(Note(message=f"ends the Slurm job of an earlier run; it has {grace_s:.0f} s to save its state"))
    job = slurm.end_job(work, grace_s)
    if job is not None:
        raise StageFailed(
            name,
            f"Slurm job {job} of an earlier run may still be at work in {work}",
            fix=f"Where Slurm answers: scancel {job}. When the job is gone, remove {work / slurm.JOB} and run again.",
        )


def _failure(name: str, code: int, work: Path, log: Path) -> StageFailed:
    error = ErrorDocument.read(work / "error.json")
    if error is not None:
        fix = error.fix or f"See the log: {log}"
        return StageFailed(name, error.message, fix=fix, log=str(log), cause=error.cause)
    if code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            cause += " (out of memory?)"
    else:
        cause = f"ended with exit code {code} and no result"
    return StageFailed(name, cause, fix=f"See the end of its log: {log}", log=str(log))


def _stop(process: subprocess.Popen[bytes], grace_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace_s)
    if process.poll() is None:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        return [EVENT.validate_json(line) for line in complete.splitlines()]
