"""Settings that the training stages have in common: the optimizer's, and the adapter's."""

from typing import Annotated, Literal

from pydantic import Field

from stages.harness.settings import StageSettings, identity


class LoraSettings(StageSettings):
    """Low-rank adapters on a frozen model, instead of training all weights."""

    rank: int = identity(8, gt=0)
    alpha: float = identity(16.0, gt=0)
    dropout: float = identity(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = identity("all-linear")
    """Names of the modules that get an adapter."""


class OptimizerSettings(StageSettings):
    """AdamW, for settings of a stage to derive from, which adds the learning rate and its schedule."""

    warmup_steps: int = identity(0, ge=0)
    """Optimizer steps in which the learning rate rises from 0."""
    adam_beta1: float = identity(0.9, ge=0, lt=1)
    adam_beta2: float = identity(0.999, ge=0, lt=1)
    adam_epsilon: float = identity(1e-8, gt=0)
    weight_decay: float = identity(0.0, ge=0)
    max_grad_norm: float = identity(1.0, gt=0)
    """Norm above which the gradient of a step is scaled down to it."""
