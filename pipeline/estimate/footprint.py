"""Memory of a training step of SFT or GRPO: computed in a process of its own on tensors without content
(stages/sft/footprint)."""

import dataclasses
from typing import Any

from pipeline.core.errors import StageFailed
from pipeline.estimate.measure import Measure
from stages.grpo.settings import GrpoSettings
from stages.sft.settings import SftSettings

PROGRAM = "stages.sft.footprint"
COMPUTED = ("uniform", "dft", "vcore")
"""Methods that are computed as they are; others count as plain SFT."""


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes of a process' tensors.

    Attributes:
        rest: between steps: weights and the optimizer's state.
        phases: the most at once in each part of a step.
        others: the most at once beside tensors of a parameter's shape: activations and buffers.
        instead: why this is of plain SFT although the stage weighs tokens; empty where it does not matter.
    """

    rest: float
    phases: dict[str, float]
    others: float
    instead: str = ""

    @property
    def peak(self) -> float:
        """The most at once."""
        return max(self.phases.values())

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in self.phases.items())
        return f"{phases}; of plain SFT, for {self.instead}" if self.instead else phases


def footprint(
    measure: Measure,
    settings: SftSettings | GrpoSettings,
    rows: int,
    length: int,
    *,
    batch_size: int,
    scored: float = 1.0,
    share: float = 1.0,
) -> Footprint:
    """A step on a GPU, of micro-batches of `rows` x `length` tokens, of which the share `scored` carries loss.

    Args:
        batch_size: rows of a step in one process.
        share: of weights, gradients, moments and directions that one process has.

    Raises:
        StageFailed: the step of this model cannot be computed.
    """
    method = settings.method.model_dump() if isinstance(settings, SftSettings) else {"name": "uniform"}
    asked: dict[str, Any] = {
        "method": method if method["name"] in COMPUTED else {"name": "uniform"},
        "rows": rows,
        "length": max(2, length),
        "batch_size": max(rows, batch_size),
        "dtype": settings.dtype,
        "lora": settings.lora.model_dump() if settings.lora else None,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "scored": scored,
        "padded": rows > 1 and not (isinstance(settings, SftSettings) and settings.packing),
        "share": share,
    }
    instead = "" if method["name"] in COMPUTED else f"{method['name']} is not computed as it is"
    try:
        numbers = dict(measure(PROGRAM, asked, {}).numbers)
    except StageFailed:
        if asked["method"]["name"] == "uniform":
            raise
        instead = "the step with token weights cannot be computed without content for this model"
        numbers = dict(measure(PROGRAM, asked | {"method": {"name": "uniform"}}, {}).numbers)
    rest, others = numbers.pop("rest"), numbers.pop("others")
    return Footprint(rest, numbers, others, instead)
