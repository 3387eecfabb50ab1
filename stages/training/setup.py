"""Torch as every training stage wants it: seeded, deterministic, quiet, on the device that the run asks for."""

import random
from typing import Any

import numpy as np
import torch
import transformers

from stages.harness.context import Context, StageError
from stages.training.library_internals import load_onto_numbered_cpus, score_labelled_positions_only


def prepare_torch(ctx: Context[Any]) -> None:
    """Seed every generator, set the thread count, ask torch for deterministic kernels, and silence progress bars.

    Raises:
        StageError: the run is for a CUDA device, and torch sees none.
    """
    torch.set_num_threads(ctx.machine.threads)
    random.seed(ctx.seed)
    np.random.seed(ctx.seed)
    torch.manual_seed(ctx.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time and changes no result
    transformers.utils.logging.disable_progress_bar()
    load_onto_numbered_cpus()
    score_labelled_positions_only()
    if ctx.machine.device == "cuda" and not torch.cuda.is_available():
        fix = "Set `execution: {device: cpu}`, or repair the CUDA set-up."
        raise StageError("the run asks for a CUDA device, and torch sees none", fix)
