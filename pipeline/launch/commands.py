"""The command that starts a stage's program: as one process, under torchrun or `accelerate launch`, or as a Slurm job.

Whatever starts it, a stage program reads the same spec, works in the same folders, and saves its state at SIGTERM.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from pipeline.config.execution import LaunchSettings
from stages.harness.process import die_with_parent


@dataclasses.dataclass(frozen=True)
class Place:
    """One node among those that a stage runs on."""

    rank: int
    """Its number, from 0."""
    host: str
    """Address of node 0, where the processes of all nodes find each other."""
    port: int


def launch_command(
    launch: LaunchSettings,
    module: str,
    spec: Path,
    attempt: str = "",
    place: Place | None = None,
    python: str = sys.executable,
) -> list[str]:
    """The words that run `python -m MODULE SPEC` as `launch` says.

    Args:
        python: the interpreter of the stage's own processes. What watches over them runs under the pipeline's.
        attempt: names this attempt for the nodes that share it, and `place` is the one of this machine; for several
            nodes that are no Slurm job.
    """
    if launch.kind == "local":
        return [python, "-P", "-m", module, str(spec)]
    ours = [sys.executable, "-P", "-m"]
    if launch.nodes > 1:
        program = [*ours, "pipeline.launch.node", str(spec), module, python, json.dumps(launch.model_dump())]
        if place is not None:
            program += [attempt, str(place.rank), place.host, str(place.port)]
    else:
        program = distributed_command(launch, module, spec, python=python)
    if launch.kind == "slurm":
        options = [str(spec), str(launch.processes), str(launch.nodes), *launch.sbatch]
        program = [*ours, "pipeline.launch.slurm", *options, "--", *program]
    return dying_with(os.getpid(), program)


def dying_with(parent: int, command: list[str]) -> list[str]:
    """A command that is sent SIGTERM when `parent`, which starts it, dies; torchrun, accelerate and the Slurm watcher
    do not ask for that themselves. What it starts asks for it, and becomes the command."""
    return [sys.executable, "-P", "-m", "pipeline.launch.commands", str(parent), *command]


def distributed_command(
    launch: LaunchSettings, module: str, spec: Path, place: Place | None = None, python: str = sys.executable
) -> list[str]:
    """The words that start a stage's processes on this machine: all of them, or those of one node among several.
    torchrun and accelerate run under the interpreter that they start the processes with, `python`.

    The nodes have fixed ranks (torchrun's static rendezvous), so that rank 0 is on node 0, and a run that is continued
    deals every process what it had.
    """
    starter, program = [python, "-P", "-m"], ["-m", module, str(spec)]
    if launch.config is not None:
        options = ["--config_file", launch.config, "--num_processes", str(launch.world)]
        if place is not None:
            options += [f"--num_machines={launch.nodes}", f"--machine_rank={place.rank}", "--same_network"]
            options += [f"--main_process_ip={place.host}", f"--main_process_port={place.port}"]
            options += ["--rdzv_backend=static", "--deepspeed_multinode_launcher=standard"]
        return [*starter, "accelerate.commands.launch", *options, *program]
    if place is not None:
        meeting = [f"--node-rank={place.rank}", f"--master-addr={place.host}", f"--master-port={place.port}"]
    elif launch.kind == "torchrun" or launch.processes > 1:
        meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    else:
        return [python, "-P", *program]
    options = [f"--nnodes={launch.nodes}", f"--nproc-per-node={launch.processes}", *meeting, "--max-restarts=0"]
    return [*starter, "torch.distributed.run", *options, *program]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
