"""The GRPO stage: reinforcement learning from verifiable rewards, from the checkpoint it is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stages.grpo.settings import GrpoSettings
from stages.harness.declaration import (
    Batch,
    Completion,
    Context,
    CustomCode,
    DataPlaces,
    NeedsGpu,
    Origin,
    StageDeclaration,
    Vllm,
    wrong_precision,
)


def _origins(settings: GrpoSettings, places: DataPlaces) -> Iterator[Origin]:
    for index, part in enumerate(settings.rewards.custom):
        yield Origin(f"grpo.rewards.custom.{index}.file", path=Path(part.file).expanduser())


def _custom_code(settings: GrpoSettings) -> Iterator[CustomCode]:
    for index, part in enumerate(settings.rewards.custom):
        yield CustomCode(
            f"grpo.rewards.custom.{index}",
            part.file,
            part.function,
            "function",
            "function",
            part.options,
            positional=3,  # problems, completions and finish reasons
            page="docs/rl.md",
        )


def _vllm(settings: GrpoSettings) -> Vllm | None:
    if settings.rollout == "transformers":
        return None
    return Vllm(
        "grpo.rollout",
        engine=settings.rollout == "vllm",
        tensor_parallel=settings.tensor_parallel,
        cpu_kv_cache_gib=settings.cpu_kv_cache_gib,
    )


def _needs_gpu(settings: GrpoSettings) -> Iterator[NeedsGpu]:
    if settings.sleep or settings.rollout == "vllm_server":
        yield NeedsGpu(f"grpo.{'sleep' if settings.sleep else 'rollout'}", "needs a GPU", "Leave it out here.")
    yield from wrong_precision("grpo", settings.dtype)


STAGE = StageDeclaration(
    name="grpo",
    settings=GrpoSettings,
    libraries=(
        "torch",
        "transformers",
        "trl",
        "peft",
        "accelerate",
        "tokenizers",
        "safetensors",
        "datasets",
        "vllm",
        "math-verify",
    ),
    sources=("evaluation/graders", "evaluation/sandbox"),
    origins=_origins,
    uses_gpu=True,
    several_processes=True,
    makes_checkpoint=True,
    trainer_config="GRPOConfig",
    batch=lambda s: Batch(s.completions_per_step, s.micro_batch_size, "completions", "grpo.prompts_per_step"),
    contexts=lambda s: [Context("grpo.max_model_len", s.max_model_len)],
    completions=lambda s: [Completion("grpo.max_completion_length", s.max_completion_length, s.max_model_len)],
    vllm=_vllm,
    needs_gpu=_needs_gpu,
    modules=lambda s: [("grpo.trackers", tracker) for tracker in s.trackers],
    custom_code=_custom_code,
)
