"""The command that starts a stage's program: as one process, under torchrun or `accelerate launch`, or as a Slurm job.

How a stage starts is apart from how many run at once: the flow decides that. Whatever starts it, a stage program reads the same spec,
works in the same folders, and answers SIGTERM by saving its state.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipeline.config.execution import LaunchSettings
from stages.harness.process import die_with_parent


def launch_command(launch: LaunchSettings, module: str, spec: Path) -> list[str]:
    """The words that run `python -m MODULE SPEC` as `launch` says."""
    python = [sys.executable, "-P"]
    if launch.kind == "local":
        return [*python, "-m", module, str(spec)]
    program = _distributed(launch, module, spec)
    if launch.kind == "slurm":
        program = [
            *python,
            "-m",
            "pipeline.launch.slurm",
            str(spec),
            str(launch.processes),
            *launch.sbatch,
            "--",
            *program,
        ]
    # torchrun, accelerate and the Slurm watcher do not ask the kernel to be told when the orchestrator dies; this does, and becomes them.
    return [*python, "-m", "pipeline.launch.commands", str(os.getpid()), *program]


def _distributed(launch: LaunchSettings, module: str, spec: Path) -> list[str]:
    if launch.kind == "accelerate":
        assert launch.config is not None  # checked by LaunchSettings
        options = ["--config_file", launch.config, "--num_processes", str(launch.processes)]
        return [sys.executable, "-P", "-m", "accelerate.commands.launch", *options, "-m", module, str(spec)]
    if launch.kind == "torchrun" or launch.processes > 1:
        options = [
            "--nnodes=1",
            f"--nproc-per-node={launch.processes}",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=127.0.0.1:0",
        ]
        return [
            sys.executable,
            "-P",
            "-m",
            "torch.distributed.run",
            *options,
            "--max-restarts=0",
            "-m",
            module,
            str(spec),
        ]
    return [sys.executable, "-P", "-m", module, str(spec)]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
