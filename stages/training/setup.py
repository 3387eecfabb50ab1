"""Torch as every training stage wants it: seeded, deterministic, quiet, on the device that the run asks for."""

import ctypes
import random
from typing import Any

import numpy as np
import torch
import transformers

from stages.harness.context import Context, StageError
from stages.training.library_internals import load_onto_numbered_cpus, score_labelled_positions_only

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


def prepare_torch(ctx: Context[Any]) -> None:
    """Seed every generator, set the thread count, ask torch for deterministic kernels, and silence progress bars.

    Where an operation has no deterministic kernel torch only warns, and on a GPU attention's backward pass then takes
    the faster kernel that is not. Where the run asks for determinism (`execution.deterministic`) it takes the other,
    and raises where there is none.

    Raises:
        StageError: the run is for a CUDA device, and torch sees none.
    """
    if ctx.machine.device == "cpu":
        _keep_freed_memory()
    torch.set_num_threads(ctx.machine.threads)
    random.seed(ctx.seed)
    np.random.seed(ctx.seed)
    torch.manual_seed(ctx.seed)
    torch.use_deterministic_algorithms(True, warn_only=not ctx.machine.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time and changes no result
    transformers.utils.logging.disable_progress_bar()
    load_onto_numbered_cpus()
    score_labelled_positions_only()
    if ctx.machine.device == "cuda" and not torch.cuda.is_available():
        fix = "Set `execution: {device: cpu}`, or repair the CUDA set-up."
        raise StageError("the run asks for a CUDA device, and torch sees none", fix)


def _keep_freed_memory() -> None:
    """Let the process reuse the memory of freed tensors, instead of giving it back to the kernel.

    glibc maps a large block anew for each tensor and unmaps it with it. Every training step then takes its gigabytes of
    activations page by page, each of which the kernel clears: a sixth to a fifth of a step of a model of 135 million
    parameters. Where the C library is not glibc, nothing changes.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
