"""What the two training stages share: set-up, loading, progress, stop and resume, saving, and the proof that training happened.

Imports torch and transformers: only a stage process imports this module.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import torch
import transformers

from stages.harness.context import Context, StageError


@functools.cache  # torch sorts what is registered, and cannot sort the same twice
def _load_onto_numbered_cpus() -> None:
    """One of several processes on a CPU has the device `cpu:N`, onto which the Trainer loads an optimizer; torch knows `cpu` only."""
    torch.serialization.register_package(
        0, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


def prepare_torch(ctx: Context[Any]) -> None:
    """Seed every generator, set the thread count, ask torch for deterministic kernels, and silence progress bars."""
    torch.set_num_threads(ctx.machine.threads)
    random.seed(ctx.seed)
    np.random.seed(ctx.seed)
    torch.manual_seed(ctx.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time and changes no result
    transformers.utils.logging.disable_progress_bar()
    _load_onto_numbered_cpus()
    if ctx.machine.device == "cuda" and not torch.cuda.is_available():
        raise StageError(
            "the run asks for a CUDA device, and torch sees none",
            "Set `execution: {device: cpu}`, or repair the CUDA set-up.",
        )
