"""The command that starts a stage's program: as one process, under torchrun or `accelerate launch`, or as a Slurm job.

Whatever starts it, a stage program reads the same spec, works in the same folders, and saves its state at SIGTERM.
"""

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
        options = [str(spec), str(launch.processes), *launch.sbatch]
        program = [*python, "-m", "pipeline.launch.slurm", *options, "--", *program]
    # torchrun, accelerate and the Slurm watcher do not die with the orchestrator; this asks for it, and becomes them.
    return [*python, "-m", "pipeline.launch.commands", str(os.getpid()), *program]


def _distributed(launch: LaunchSettings, module: str, spec: Path) -> list[str]:
    python, program = [sys.executable, "-P", "-m"], ["-m", module, str(spec)]
    if launch.kind == "accelerate":
        assert launch.config is not None  # checked by LaunchSettings
        options = ["--config_file", launch.config, "--num_processes", str(launch.processes)]
        return [*python, "accelerate.commands.launch", *options, *program]
    if launch.kind == "torchrun" or launch.processes > 1:
        meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
        options = ["--nnodes=1", f"--nproc-per-node={launch.processes}", *meeting, "--max-restarts=0"]
        return [*python, "torch.distributed.run", *options, *program]
    return [sys.executable, "-P", *program]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
