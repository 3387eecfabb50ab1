"""What this machine is, found without importing torch."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Literal

from pipeline.config.execution import ExecutionSettings
from pipeline.core.errors import ConfigError
from pipeline.plan.graph import Stage
from pipeline.store.documents import Hardware


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def gpus() -> list[str]:
    """Names of the NVIDIA GPUs this process may use, as `nvidia-smi` tells them; empty where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return []
    return _nvidia_smi("name,memory.total")


@cache
def gpu_uuids() -> dict[str, str]:
    """Index -> UUID of every NVIDIA GPU of the machine, as `nvidia-smi` counts them; empty where it does not answer."""
    rows = (line.split(",") for line in _nvidia_smi("index,uuid"))
    return {index.strip(): uuid.strip() for index, uuid in rows}


def _nvidia_smi(fields: str) -> list[str]:
    """One line a GPU; none where the program is missing or no driver answers, so that no GPU can be used."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them: its own entries, else the indices from 0."""
    named = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    return named or [str(index) for index in range(len(gpus()))]


def device(execution: ExecutionSettings) -> str:
    """`cpu` or `cuda`. Raises `ConfigError` when cuda is asked for and there is none."""
    if execution.device == "cuda" and not gpus():
        fix = "Use `--set execution.device=cpu`, or check `nvidia-smi` and CUDA_VISIBLE_DEVICES."
        raise ConfigError("no NVIDIA GPU answers on this machine", where="execution.device", fix=fix)
    return ("cuda" if gpus() else "cpu") if execution.device == "auto" else execution.device


def stage_device(execution: ExecutionSettings, stage: Stage) -> str:
    """`cpu` or `cuda`: what a stage computes on, which for a Slurm job depends on its node and not on this machine.

    Raises `ConfigError` when cuda is asked for, the stage would use it here, and there is none.
    """
    launch = execution.launch_of(stage.name)
    if launch.kind == "slurm":
        return ("cuda" if asks_for_gpus(launch.sbatch) else "cpu") if execution.device == "auto" else execution.device
    return device(execution) if stage.kind.uses_gpu or gpus() else "cpu"


def comes_back(execution: ExecutionSettings, stage: Stage) -> Literal["bit for bit", "to rounding", ""]:
    """How a stage's content comes back on the same hardware, with the same versions, threads and processes.

    On a GPU bit for bit only with `execution.deterministic`, on one GPU, and where the stage has kernels for it; empty
    where a server computes. Raises `ConfigError` as `stage_device` does.
    """
    if getattr(stage.settings, "server", None) is not None:
        return ""
    if not stage.kind.uses_gpu or stage_device(execution, stage) == "cpu":
        return "bit for bit"
    launch = execution.launch_of(stage.name)
    alone = launch.nodes == 1 and stage.kind.gpus(stage.settings, launch.processes) == 1
    exact = execution.deterministic and alone and stage.kind.deterministic_on_gpu(stage.settings)
    return "bit for bit" if exact else "to rounding"


def leased_gpus(execution: ExecutionSettings, stage: Stage) -> int:
    """GPUs of this machine that a stage takes for itself while it runs; 0 on the CPU, and for a job on another machine.

    Raises `ConfigError` as `stage_device` does.
    """
    launch = execution.launch_of(stage.name)
    if launch.kind == "slurm" or not stage.kind.uses_gpu or stage_device(execution, stage) == "cpu":
        return 0
    return stage.kind.gpus(stage.settings, launch.processes)


def asks_for_gpus(sbatch: list[str]) -> bool:
    """Whether options of sbatch ask for GPUs. Where a partition gives them unasked, `device: cuda` has to say so."""
    return re.search(r"(^|\s)(-G|--gpus|(--gres|--tres-per-\w+)[=\s]\S*gpu)", " ".join(sbatch)) is not None


def hardware() -> Hardware:
    """Provenance for the manifest; never part of a key."""
    return Hardware(
        cpu=_cpu_name(),
        cores=cores(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=gpus(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if name := re.search(r"^model name\s*:(.*)$", info, re.MULTILINE):
            return name[1].strip()
    return platform.processor() or "unknown"
