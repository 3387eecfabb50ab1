"""The environment of a stage's process."""

import os
import socket

from pipeline.core.shipped import ROOT


def stage_environment(device: str, threads: int | None, *, hub: bool, deterministic: bool = False) -> dict[str, str]:
    """Only what must be set before a library is imported, or keeps libraries quiet and offline.

    Args:
        threads: CPU threads of the process; None where the machine it will run on is not known yet
            (pipeline/launch/slurm.py).
        hub: whether the stage may reach the hub.
        deterministic: whether kernels on a GPU, torch's and vLLM's, have to give results that come back bit for bit.
    """
    env = dict(os.environ)
    if threads is not None:
        env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    env.update(
        # Threads that wait must sleep: by default they spin, and where anything else runs on the cores a step takes
        # twenty times as long.
        OMP_WAIT_POLICY="PASSIVE",
        # torch.distributed inside a stage (vLLM beside the trainer) would else meet a second pipeline of this machine
        # at one fixed port.
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
        # The stage runs the code whose digests are in its key, also where another checkout is the one installed.
        PYTHONPATH=python_path(),
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
    else:
        # vLLM's only float32 attention on CUDA is Triton's, which by default rounds the factors of a product to TF32's
        # ten bits: log-probabilities would then differ from the trainer's by more than the bound that proves the same
        # weights. In 16 bits it changes nothing.
        env["TRITON_F32_DEFAULT"] = "ieee"
        if deterministic:
            env["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS is not, and torch refuses its products
            env["VLLM_BATCH_INVARIANT"] = "1"
    return env


def python_path() -> str:
    """PYTHONPATH of a process that runs the code of this checkout, whichever one is installed."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
