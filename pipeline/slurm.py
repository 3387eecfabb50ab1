"""A stage as a Slurm job: `python -m pipeline.slurm SPEC [SBATCH OPTION ...] -- COMMAND ...`.

Submits the command with sbatch, follows the job, and ends as it ended. Stopping this process (SIGTERM) sends SIGTERM to the job, which
saves its state and leaves; so does Slurm itself before the job's time limit (--signal). Node and orchestrator must share the store's files.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from stages.runtime import EXIT_STOPPED, read_json, write_json

POLL_SECONDS = 1.0
ASK_SLURM_EVERY = 10
"""Polls of the exit code's file between two questions to Slurm, which is shared with others."""
SAVE_SECONDS = 120
"""Slurm sends SIGTERM so long before the job's time limit."""


def main(spec: Path, options: list[str], command: list[str]) -> int:
    """Submit, wait, and return the exit code of the stage; 1 where Slurm ended the job without one."""
    exit_code = spec.parent / "slurm.exit"
    exit_code.unlink(missing_ok=True)
    values = read_json(spec)
    write_json(spec, values | {"parent": None})  # the orchestrator is no process of the node's
    script, exit_part = spec.parent / "slurm.sh", shlex.quote(f"{exit_code}.part")
    # bash handles a signal only between commands: the stage runs in the background, and the signal is passed on to it.
    script.write_text(
        "#!/bin/bash\n"
        f"cd {shlex.quote(str(Path.cwd()))}\n"
        f"{shlex.join(command)} &\n"
        "child=$!\n"
        "trap 'kill -TERM $child' TERM INT\n"
        "wait $child; code=$?\n"
        "while kill -0 $child 2>/dev/null; do wait $child; code=$?; done\n"
        f"echo $code > {exit_part} && mv {exit_part} {shlex.quote(str(exit_code))}\n"
        "exit $code\n",
        encoding="utf-8",
    )
    stage = values["stage"]
    log = spec.parent / "stage.log"
    fixed = ["--parsable", f"--job-name=vcore-{stage}", f"--output={log}", "--open-mode=append", f"--signal=B:TERM@{SAVE_SECONDS}"]
    submitted = subprocess.run(["sbatch", *fixed, *options, str(script)], capture_output=True, text=True)
    if submitted.returncode != 0:
        write_json(
            spec.parent / "error.json", {"message": f"sbatch refused the job: {submitted.stderr.strip()}", "fix": "See its options."}
        )
        return 1
    job = submitted.stdout.strip().partition(";")[0]
    print(f"Slurm job {job}", flush=True)

    def stop(signum: int, frame: FrameType | None) -> None:
        subprocess.run(["scancel", "--batch", "--signal=TERM", job], check=False)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for poll in itertools.count(1):
        time.sleep(POLL_SECONDS)
        if exit_code.is_file():
            break
        if poll % ASK_SLURM_EVERY:
            continue
        known = subprocess.run(["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True)
        if known.returncode != 0 or not known.stdout.strip():  # Slurm knows the job no more
            time.sleep(ASK_SLURM_EVERY * POLL_SECONDS)  # its exit code may still be on its way through a shared file system
            break
    with contextlib.suppress(OSError, ValueError):
        code = int(exit_code.read_text(encoding="utf-8"))
        return EXIT_STOPPED if code in (EXIT_STOPPED, 128 + signal.SIGTERM, 128 + signal.SIGINT) else code
    write_json(spec.parent / "error.json", {"message": f"Slurm ended job {job} without a result", "fix": f"See: sacct -j {job}; {log}"})
    return 1


if __name__ == "__main__":
    split = sys.argv.index("--")
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:split], sys.argv[split + 1 :]))
