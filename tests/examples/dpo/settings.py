"""Settings of the DPO stage."""

from __future__ import annotations

from typing import Literal

from stages.harness.settings import StageSettings, execution, identity


class DpoSettings(StageSettings):
    """Training on pairs of a chosen and a rejected completion (arXiv 2305.18290)."""

    file: str = execution()
    """JSON lines with the texts `prompt`, `chosen` and `rejected`. Its content enters the key, its path does not."""
    beta: float = identity(0.1, gt=0)
    """How strongly the policy is held to the model it started from."""
    learning_rate: float = identity(5e-6, gt=0)
    batch_size: int = identity(8, gt=0)
    """Pairs per optimizer step."""
    micro_batch_size: int | None = execution(None, gt=0)
    """Pairs per forward and backward pass; must divide `batch_size`. None: the whole batch at once."""
    max_steps: int = identity(100, gt=0)
    """Optimizer steps."""
    max_length: int = identity(1024, gt=1)
    """Tokens of prompt and completion together."""
    dtype: Literal["float32", "bfloat16"] = identity("float32")
    checkpoint_steps: int = execution(100, gt=0)
    """Optimizer steps between two checkpoints that a stopped run can resume from."""
    trackers: list[Literal["wandb", "trackio"]] = execution([])
