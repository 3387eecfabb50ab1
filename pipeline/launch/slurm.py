"""A stage as a Slurm job: `python -m pipeline.launch.slurm SPEC PROCESSES NODES [SBATCH OPTION ...] -- COMMAND ...`.

Submits the command with sbatch, follows the job, and ends as it ended. Stopping this process (SIGTERM) sends SIGTERM to
the job, which saves its state and leaves; so does Slurm itself before the job's time limit (--signal). Node and
orchestrator must share the store's files.

A job does not die with the process that follows it. Its id is in the work folder from its submission to its end, so
that it can be ended before its stage is given up or started again: two jobs in one folder would write into each other's
state.

With several nodes the job runs the command once on each of them with srun (pipeline/launch/node.py), and these programs
watch each other. So neither srun nor Slurm ends a step because one node has: it may have saved its state sooner than
the others.
"""

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pipeline.core.processes import MARK
from pipeline.launch.node import NODES, STOP, ends_of_nodes
from stages.harness.documents import ErrorDocument, Spec
from stages.harness.process import EXIT_STOPPED

POLL_SECONDS = 1.0
ASK_SLURM_EVERY = 10
"""Polls of the exit code's file between two questions to Slurm, which is shared with others."""
SAVE_SECONDS = 120
"""Slurm sends SIGTERM so long before the job's time limit."""
CANCEL_SECONDS = 60
"""A cancelled job is gone by then: Slurm kills it 30 s after SIGTERM, unless its KillWait is set otherwise."""
JOB, STARTED, EXIT_CODE = "slurm.job", "slurm.started", "slurm.exit"
"""In the work folder: the id of the job there, that it has left the queue, and how it ended."""
UNKNOWN_JOB = "Invalid job id"
"""How squeue says that it knows a job no more; its exit code is the same where Slurm does not answer."""


def is_listed(job: str) -> bool:
    """Whether the job waits, runs or is ending; it may where Slurm does not answer. Raises `OSError` without squeue."""
    answer = subprocess.run(["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True)
    return says_listed(answer.returncode, answer.stdout, answer.stderr)


def says_listed(code: int, output: str, errors: str) -> bool:
    """Whether squeue, asked for one job, says that it waits, runs or is ending, or does not know."""
    return bool(output.strip()) if code == 0 else UNKNOWN_JOB not in errors


def ask_to_stop(job: str) -> None:
    """Have a running job save its state and leave, and a waiting one forgotten, which no signal reaches."""
    subprocess.run(["scancel", "--state=PENDING", job], check=False)
    subprocess.run(["scancel", "--batch", "--signal=TERM", job], check=False)


def end_job(work: Path, grace_s: float) -> str | None:
    """End the job that was left in a work folder: ask it to stop, and cancel it after `grace_s` seconds.

    Returns its id where it may still be there, because Slurm does not answer, or not in time; else None.
    """
    file = work / JOB
    if not file.is_file():
        return None
    job = file.read_text(encoding="utf-8").strip()
    try:
        if grace_s and is_listed(job):
            ask_to_stop(job)
            _wait_until_gone(job, grace_s)
        if is_listed(job):
            subprocess.run(["scancel", job], check=False)
            if not _wait_until_gone(job, CANCEL_SECONDS):
                return job
    except OSError:  # a machine without Slurm, which shares the store
        return job
    file.unlink(missing_ok=True)
    return None


def _wait_until_gone(job: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while listed := is_listed(job):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return not listed


def main(file: Path, processes: int, nodes: int, options: list[str], command: list[str]) -> int:
    """Submit, wait, and return the exit code of the stage; 1 where Slurm ended the job without one."""
    work, log = file.parent, file.parent / "stage.log"
    (work / EXIT_CODE).unlink(missing_ok=True)
    spec = Spec.model_validate_json(file.read_bytes())
    spec.model_copy(update={"parent": None}).write(file)  # the orchestrator is no process of the node's
    script = work / "slurm.sh"
    count_cores = spec.machine.threads_given is None
    script.write_text(_script(work, command, processes, nodes, set_threads=count_cores), encoding="utf-8")
    fixed = ["--parsable", f"--job-name=vcore-{spec.stage}", f"--output={log}", "--open-mode=append"]
    if nodes > 1:  # a job that Slurm queues again by itself would go on with what its first start has said
        fixed += [f"--nodes={nodes}", "--ntasks-per-node=1", "--no-requeue"]
    stop_first = f"--signal=B:TERM@{SAVE_SECONDS}"
    signals: list[int] = []
    job = ""

    def stop(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        if job:
            ask_to_stop(job)

    # Before there is a job: one that is being submitted is stopped as soon as its id is known.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sbatch = ["sbatch", *fixed, stop_first, *options, str(script)]
    submitted = subprocess.run(sbatch, capture_output=True, text=True, env=_environment(spec))
    if submitted.returncode != 0:
        refusal = f"sbatch refused the job: {submitted.stderr.strip()}"
        ErrorDocument(message=refusal, fix="See its options.").write(work / "error.json")
        return 1
    job = submitted.stdout.strip().partition(";")[0]
    (work / JOB).write_text(job, encoding="utf-8")
    print(f"Slurm job {job}", flush=True)
    if signals:
        ask_to_stop(job)
    for poll in itertools.count(1):
        time.sleep(POLL_SECONDS)
        if (work / EXIT_CODE).is_file():
            break
        if any(end.lost for end in ends_of_nodes(work).values()):  # srun would wait for what the lost one says
            end_job(work, grace_s=0)
            return 1
        if poll % ASK_SLURM_EVERY == 0 and not is_listed(job):
            if not signals:  # its exit code may still be on its way through a shared file system
                time.sleep(ASK_SLURM_EVERY * POLL_SECONDS)
            break
    (work / JOB).unlink(missing_ok=True)
    with contextlib.suppress(OSError, ValueError):
        code = int((work / EXIT_CODE).read_text(encoding="utf-8"))
        return EXIT_STOPPED if code in (EXIT_STOPPED, 128 + signal.SIGTERM, 128 + signal.SIGINT) else code
    if signals:
        return EXIT_STOPPED
    error = ErrorDocument(message=f"Slurm ended job {job} without a result", fix=f"See: sacct -j {job}; {log}")
    error.write(work / "error.json")
    return 1


def _environment(spec: Spec) -> dict[str, str]:
    """What the job inherits: not this machine's GPUs, nor the mark by which the orchestrator ends processes here."""
    left_out = {MARK} | ({"CUDA_VISIBLE_DEVICES"} if spec.machine.device == "cuda" else set())
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _script(work: Path, command: list[str], processes: int, nodes: int, *, set_threads: bool) -> str:
    """The job. bash handles a signal only between commands, so it passes the signal on to a stage in the background."""
    exit_code, part = (shlex.quote(str(work / name)) for name in (EXIT_CODE, f"{EXIT_CODE}.part"))
    threads = (
        "unset OMP_NUM_THREADS MKL_NUM_THREADS\n"  # nproc would take the first for the number of cores
        f"export OMP_NUM_THREADS=$(( ${{SLURM_CPUS_PER_TASK:-$(nproc)}} / {processes} ))\n"
        "[ $OMP_NUM_THREADS -ge 1 ] || export OMP_NUM_THREADS=1\n"
        "export MKL_NUM_THREADS=$OMP_NUM_THREADS\n"
    )
    start, stop = (shlex.join(command), "kill -TERM $child") if nodes == 1 else _on_nodes(work, command, nodes)
    return (
        "#!/bin/bash\n"
        f"touch {shlex.quote(str(work / STARTED))}\n"
        f"cd {shlex.quote(str(Path.cwd()))}\n"
        f"{threads if set_threads else ''}"
        f"{start} &\n"
        "child=$!\n"
        f"stop() {{ {stop}; }}\n"
        "trap stop TERM INT\n"
        "wait $child; code=$?\n"
        "while kill -0 $child 2>/dev/null; do wait $child; code=$?; done\n"
        f"echo $code > {part} && mv {part} {exit_code}\n"
        "exit $code\n"
    )


def _on_nodes(work: Path, command: list[str], nodes: int) -> tuple[str, str]:
    """What starts the command on each node of a job, and what stops it: a signal would make srun kill its step.

    The script runs on the job's first node, whose address srun tells all of them. --cpus-per-task is no longer taken
    over from sbatch since Slurm 22.05.
    """
    program = f"exec {shlex.join(command)} $SLURM_JOB_ID $SLURM_NODEID $SLURM_LAUNCH_NODE_IPADDR $0"
    step = f"--nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0"
    port = shlex.join(
        [sys.executable, "-P", "-c", "from pipeline.launch import environment as e; print(e.free_port())"]
    )
    cores = "${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}"
    start = f"port=$({port})\nsrun {step} {cores} bash -c {shlex.quote(program)} $port"
    folder = f"{shlex.quote(str(work / NODES))}/$SLURM_JOB_ID"
    return start, f"mkdir -p {folder} && touch {folder}/{STOP}"


if __name__ == "__main__":
    split = sys.argv.index("--")
    counts, options = sys.argv[2:4], sys.argv[4:split]
    raise SystemExit(main(Path(sys.argv[1]), int(counts[0]), int(counts[1]), options, sys.argv[split + 1 :]))
