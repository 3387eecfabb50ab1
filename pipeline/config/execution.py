"""The `execution:` section of a config: how stages run on a machine. None of it enters a key, whatever it is set to; of
another Python (`python`) its versions do, as those of the pipeline's own."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.harness.settings import StageSettings, execution

NOTIFY_ON: list[Literal["failed", "finished", "moved"]] = ["failed", "moved"]
"""What a notification block is told of where nothing else is set: what somebody may have to act on."""


class LaunchSettings(StageSettings):
    """How one stage's process is started (pipeline/launch/commands.py)."""

    kind: Literal["local", "torchrun", "accelerate", "slurm"] = execution("local")
    processes: int = execution(1, gt=0)
    """Training processes on one machine, with torchrun and accelerate; `sft` shares its batch out over them."""
    nodes: int = execution(1, gt=0)
    """Machines that share one training out, each with `processes` of it: those of a Slurm job, or, with torchrun and
    accelerate, those on which the same command was started (docs/orchestration.md, "Several nodes")."""
    config: str | None = execution(None)
    """A file for `accelerate launch --config_file`: configs/accelerate/ has some."""
    sbatch: list[str] = execution([])
    """Options of Slurm's sbatch, for example --gres=gpu:8. With several processes the job runs torchrun, or accelerate
    where `config` names a file."""

    @property
    def world(self) -> int:
        """Processes on all nodes together."""
        return self.nodes * self.processes

    @model_validator(mode="after")
    def _consistent(self) -> LaunchSettings:
        if self.kind == "local" and self.processes > 1:
            raise ValueError("processes: one local process is one; choose kind: torchrun or accelerate")
        if self.kind == "local" and self.nodes > 1:
            raise ValueError("nodes: one local process is on one; choose kind: slurm, torchrun or accelerate")
        if self.config is not None and self.kind not in ("accelerate", "slurm"):
            raise ValueError(f"config: is a file of accelerate's, and kind is {self.kind}")
        if self.kind == "accelerate" and self.config is None:
            raise ValueError("config: accelerate needs a file, or it would use whatever is set up on the machine")
        if self.sbatch and self.kind != "slurm":
            raise ValueError(f"sbatch: are options of Slurm's, and kind is {self.kind}")
        asked = nodes_asked(self.sbatch)
        if asked not in (None, str(self.nodes)):
            uses = "the stage uses one" if self.nodes == 1 else f"nodes is {self.nodes}"
            raise ValueError(f"sbatch: asks for {asked} nodes, and {uses}; write `nodes: N` in place of --nodes")
        for option, why in OF_ONE_NODE.items() if self.nodes > 1 else ():
            if _has_option(self.sbatch, option):
                raise ValueError(f"sbatch: {option} cannot be with several nodes: {why}")
        return self


OF_ONE_NODE = {
    "--requeue": "a job that Slurm starts again by itself would read what its first start has said; leave it out, and "
    "execution.retries tries again",
    "--ntasks-per-node": "each of them has one task, which starts `processes`; leave it out",
    "--array": "each of its jobs would write into the same folder; leave it out",
}
"""Options of sbatch that a job on several nodes cannot have -> why."""


def _has_option(sbatch: list[str], option: str) -> bool:
    """Whether an option of sbatch is among `sbatch`: in full, or as the beginning of it that sbatch understands."""
    words = " ".join(sbatch).split()
    if option == "--array" and any(word.startswith("-a") for word in words):
        return True
    shortest = {"--requeue": "--req", "--ntasks-per-node": "--ntasks-per-n", "--array": "--ar"}[option]
    names = (word.partition("=")[0] for word in words)
    return any(name.startswith(shortest) and option.startswith(name) for name in names)


def nodes_asked(sbatch: list[str]) -> str | None:
    """How many nodes options of sbatch ask for, as they say it (`2`, or `2-4`); None where they leave it open."""
    found = re.findall(r"(?:^|\s)(?:-N[=\s]*|--nod(?:es?)?[=\s]\s*)([^\s=]+)", " ".join(sbatch))
    return found[-1] if found else None


def entry_for(stage: str, entries: Container[str]) -> str | None:
    """The entry of a mapping that holds for a stage: of generate.sft.svamp-16 its own, or that of generate.sft, or that
    of generate; None where there is none."""
    names = (stage, stage.rpartition(".")[0], stage.partition(".")[0])
    return next((name for name in names if name in entries), None)


class ExecutionSettings(StageSettings):
    """How stages run on this machine."""

    device: Literal["auto", "cpu", "cuda"] = execution("auto")
    deterministic: bool = execution(False)
    """On a GPU, ask for kernels whose results come back bit for bit: torch's in SFT, and vLLM's
    batch-invariant ones where a stage only samples. They are slower, and a model for which there are none ends
    with an error. False: results come back to rounding. On a CPU they come back bit for bit either way."""
    threads: int | None = execution(None, gt=0, le=4096)
    """CPU threads of one stage process. None: all cores, shared out where several stages run at once."""
    stages_at_once: int = execution(1, gt=0)
    """How many stages of a run may run at the same time, such as an evaluation beside the next training. On GPUs those
    that are free at once: each stage leases its own."""
    gpus: int | None = execution(None, gt=0)
    """The most GPUs that a stage may lease; None: all visible ones. It leases what it computes on: one for each process
    of a training, tensor_parallel x data_parallel for an evaluation. Runs on one machine wait for each other."""
    launch: dict[str, LaunchSettings] = execution({})
    """Stage (`generate.sft`), or all of a kind (`generate`) -> how its process is started; else one local one."""
    python: dict[str, Annotated[str, Field(min_length=1)]] = execution({})
    """Stage, or all of a kind -> the Python that runs its process: an interpreter, or the folder of a virtual
    environment. Its versions are in that stage's key. None named: the pipeline's own (docs/orchestration.md, "Another
    environment for a stage")."""
    time_limit_s: dict[str, float] = execution({})
    """Stage, or all of a kind, each -> seconds after which it is asked to stop and the run fails. Its state is kept: a
    run with a higher limit continues."""
    retries: int = execution(2, ge=0, le=10)
    """How often a stage is tried again after a failure that may pass: no memory left (with half the micro-batch), the
    hub or the network not answering. No other failure is tried again."""
    retry_delay_s: float = execution(15.0, ge=0)
    """Seconds before the first retry; doubled before each further one."""
    mirror: str | None = execution(None)
    """URL of a folder that stores share (file://, s3://, gs://, ...): finished artifacts are uploaded, missing ones
    fetched from there."""
    notify: str | None = execution(None, pattern=r"^[^/\s]+/[^/\s]+$")
    """A notification block of the Prefect server (`slack-webhook/my-channel`): told of what `notify_on` names."""
    notify_on: list[Literal["failed", "finished", "moved"]] = execution(NOTIFY_ON, min_length=1)
    """What `notify` is told of: runs that failed, runs that finished (those that found all cached, too), and scores
    that moved. Of a run that somebody stopped it is never told."""
    stop_grace_s: float | None = execution(None, gt=0)
    """Seconds a stopped stage has to save its state before it is killed. None: a minute, or longer where its last steps
    (in RL those of a whole rollout) and writing its checkpoint take longer."""
    min_free_gib: float = execution(2.0, ge=0)
    """Refuse to start with less free disk than this below `home`, beside what checkpoints take. 0: whatever is free."""

    def launch_of(self, stage: str) -> LaunchSettings:
        """How the process of a stage is started."""
        name = entry_for(stage, self.launch)
        return self.launch[name] if name is not None else LaunchSettings()

    def time_limit_of(self, stage: str) -> float | None:
        """Seconds that a stage may take; None: as long as it needs."""
        name = entry_for(stage, self.time_limit_s)
        return self.time_limit_s[name] if name is not None else None

    @model_validator(mode="after")
    def _somebody_to_notify(self) -> ExecutionSettings:
        if self.notify is None and self.notify_on != NOTIFY_ON:
            raise ValueError("notify_on: nobody is told; name a notification block in notify")
        if len(set(self.notify_on)) < len(self.notify_on):
            raise ValueError("notify_on: names one thing twice")
        return self

    @model_validator(mode="after")
    def _limits(self) -> ExecutionSettings:
        for stage, seconds in self.time_limit_s.items():
            if seconds <= 0:
                raise ValueError(f"time_limit_s.{stage}: must be above 0")
        return self
