"""What will work and cost more than it has to: said in `vcore plan`, and no reason to refuse."""

from collections.abc import Iterator, Sequence

from pipeline.checks.preflight import SPLIT, distributed_type
from pipeline.config.schema import PipelineConfig
from pipeline.launch.machine import stage_device
from pipeline.plan.planning import Planned
from stages.grpo.settings import GrpoSettings
from stages.sft.settings import SftSettings

LONG = 2048
"""Tokens from which on the scores of all heads, a square of them, are much of a step's memory."""


def hints(config: PipelineConfig, plan: Sequence[Planned]) -> list[str]:
    """Of the stages that have to run, one line each."""
    trainings = [planned.stage for planned in plan if planned.state != "HIT"]
    return [
        f"{stage.name}: {hint}"
        for stage in trainings
        if isinstance(stage.settings, SftSettings | GrpoSettings)
        for hint in _of_training(config, stage.name, stage.settings, stage_device(config.execution, stage))
    ]


def _of_training(config: PipelineConfig, name: str, settings: SftSettings | GrpoSettings, device: str) -> Iterator[str]:
    if device != "cuda":
        return
    if isinstance(settings, SftSettings):
        length = settings.max_length
    else:
        length = settings.max_model_len or settings.max_completion_length
    packing = isinstance(settings, SftSettings) and settings.packing
    if settings.dtype == "float32" and (packing or length > LONG):
        which = "some models, as rows end to end have no mask" if packing else "some models and batches"
        yield (
            f"in float32 a GPU's fused attention serves only {which}; elsewhere each layer keeps the scores of every "
            f"head, a square of up to {length:,} tokens. With {name}.dtype: bfloat16 it never does."
        )
    file = config.execution.launch_of(name).config
    checked = settings.stop_check_prompts if isinstance(settings, GrpoSettings) else 0
    if checked and file is not None and distributed_type(file) in SPLIT:
        yield (
            f"before training {checked} prompts are completed on the CPU, since the weights are not shared out yet. "
            "Where SFT is known to end its completions, leave that out with grpo.stop_check_prompts: 0."
        )
