"""What one process of a training stage holds of weights, gradients and Adam's moments, as the stage is launched.

As the pinned libraries do it: torch's DDP, accelerate's DeepSpeed and FSDP2 plugins, TRL's preparation of the reference model.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import yaml

from pipeline.config.execution import LaunchSettings
from pipeline.core.errors import ConfigError
from pipeline.estimate.shape import Shape, adapter_parameters
from stages.sft.settings import LoraSettings

GIB = 2.0**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ZERO_BUCKET = 5e8
"""Elements of DeepSpeed's buckets for gradients and for gathered weights, by its defaults; one of each."""
AUTOCAST_COPY = "weights in 16 bits"
"""Autocast makes them anew in each forward pass: they are there only while it trains."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Over how many processes a training state is shared out, and how: `none` is whole in each, `ddp` as well."""

    processes: int = 1
    kind: Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"] = "none"

    def __str__(self) -> str:
        return "one process" if self.kind == "none" else f"{self.processes} processes, {self.kind}"


def split_of(launch: LaunchSettings) -> Split:
    """The split of a launch. Raises `ConfigError` for a file of accelerate's that cannot be read, or says what is not known here."""
    if launch.kind != "accelerate":
        return Split(launch.processes, "ddp") if launch.processes > 1 else Split()
    assert launch.config is not None  # checked by LaunchSettings
    try:
        said = yaml.safe_load(Path(launch.config).expanduser().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{launch.config} cannot be read: {error}", where="execution.launch", fix="See configs/accelerate/."
        ) from error
    distributed = said.get("distributed_type", "NO")
    if distributed == "DEEPSPEED":
        stage = said.get("deepspeed_config", {}).get("zero_stage")
        if stage in (1, 2, 3):
            return Split(launch.processes, {1: "zero1", 2: "zero2", 3: "zero3"}[stage])  # type: ignore[arg-type]
        raise ConfigError(
            f"{launch.config} names no zero_stage in deepspeed_config: its memory is not known",
            where="execution.launch",
        )
    if distributed == "FSDP":
        return Split(launch.processes, "fsdp")
    if distributed in ("MULTI_GPU", "NO"):
        return Split(launch.processes, "ddp") if launch.processes > 1 else Split()
    raise ConfigError(f"the memory of distributed_type {distributed} is not known here", where=launch.config)


def training_state(shape: Shape, lora: LoraSettings | None, dtype: str, split: Split) -> tuple[dict[str, float], int]:
    """Parts in GiB of one process, and how many parameters are trained.

    What is trained is float32 with Adam's two moments. In bfloat16, autocast keeps a 16-bit copy; DeepSpeed and FSDP2 have 16-bit weights
    of their own instead.
    """
    trained = shape.parameters if lora is None else adapter_parameters(shape, lora)
    frozen = 0 if lora is None else shape.parameters
    width, each = BYTES[dtype], split.processes
    if split.kind in ("none", "ddp"):
        parts: dict[str, float] = {"weights": 4 * trained + width * frozen}
        if lora is None and dtype == "bfloat16":
            parts[AUTOCAST_COPY] = 2 * trained
        parts |= {"gradients": 4 * trained, "optimizer": 8 * trained}
        if split.kind == "ddp":
            parts["DDP's buckets"] = 4 * trained  # gradients once more: gradient_as_bucket_view is off by default
    elif split.kind == "fsdp":
        # Two layers at once are whole, in 16 bits, and the gradients of a third; the embedding and the output layer always.
        outside = 2 * shape.vocabulary * shape.hidden
        gathered = width * (outside + 3 * max(0, shape.parameters - outside) / shape.layers)
        parts = {"weights": (4 * trained + width * frozen) / each, "weights gathered at once": gathered}
        parts |= {"gradients": 4 * trained / each, "optimizer": 8 * trained / each}
    else:
        whole = 1 if split.kind == "zero3" else each
        parts = {
            "weights": width * (trained + frozen) * whole / each,
            "float32 weights of the optimizer": 4 * trained / each,
        }
        kept = trained if split.kind == "zero1" else trained / each
        parts |= {
            "gradients": width * kept + 4 * trained / each
        }  # in the model's type, and as float32 in the optimizer's step
        parts |= {"optimizer": 8 * trained / each, "DeepSpeed's buckets": 2 * width * min(ZERO_BUCKET, trained)}
    return {name: size / GIB for name, size in parts.items()}, trained


def reference_gib(shape: Shape, dtype: str, split: Split) -> float:
    """The frozen copy of the starting model in one process: TRL loads it in float32; DeepSpeed casts it and splits it in stage 3 only."""
    if split.kind in ("none", "ddp"):
        return 4 * shape.parameters / GIB
    if split.kind == "fsdp":
        return 4 * shape.parameters / split.processes / GIB
    return BYTES[dtype] * shape.parameters / (split.processes if split.kind == "zero3" else 1) / GIB
