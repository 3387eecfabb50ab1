"""The SFT stage: supervised fine-tuning with token reweighting."""

from collections.abc import Iterator
from pathlib import Path

from stages.harness.declaration import (
    Batch,
    Context,
    CustomCode,
    DataPlaces,
    Origin,
    StageDeclaration,
    training_disk,
    wrong_precision,
)
from stages.sft.method_settings import CustomSettings, VcoreSettings
from stages.sft.objective_settings import EaftSettings, PriFtSettings, TrimSftSettings
from stages.sft.settings import SftSettings
from stages.training import LIBRARIES


def _origins(settings: SftSettings, places: DataPlaces) -> Iterator[Origin]:
    if isinstance(settings.method, CustomSettings):
        yield Origin("sft.method.file", path=Path(settings.method.file).expanduser())


def _whole_weights(settings: SftSettings) -> Iterator[tuple[str, str]]:
    if isinstance(settings.method, VcoreSettings) and settings.method.utility == "jvp":
        yield "sft.method.utility", "central_difference"
    if isinstance(settings.method, EaftSettings | TrimSftSettings):  # a product of their own with the head
        yield "sft.method", "{name: uniform}"
    if isinstance(settings.method, PriFtSettings) and settings.method.weights == "mass":
        yield "sft.method.weights", "prob"


def _custom_code(settings: SftSettings) -> Iterator[CustomCode]:
    method = settings.method
    if isinstance(method, CustomSettings):
        yield CustomCode(
            "sft.method",
            method.file,
            method.class_name,
            "class_name",
            "class",
            method.options,
            positional=1,
            page="docs/methods.md",
            base="stages.sft.reweighting.base.Method",
            defines=("weigh", "finish", "anchor"),
        )


STAGE = StageDeclaration(
    name="sft",
    settings=SftSettings,
    libraries=LIBRARIES,
    origins=_origins,
    uses_gpu=True,
    deterministic_on_gpu=lambda s: True,
    several_processes=True,
    splits_model=("FSDP2",),
    whole_weights=_whole_weights,
    makes_checkpoint=True,
    trainer_config="SFTConfig",
    batch=lambda s: Batch(s.batch_size, s.micro_batch_size, "rows", "sft.batch_size"),
    contexts=lambda s: [Context("sft.max_length", s.max_length)],
    needs_gpu=lambda s: wrong_precision("sft", s.dtype),
    disk=lambda s: training_disk(s, s.max_steps),
    modules=lambda s: [("sft.trackers", tracker) for tracker in s.trackers],
    custom_code=_custom_code,
)
