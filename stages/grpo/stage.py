"""The GRPO stage: reinforcement learning from verifiable rewards, from the checkpoint it is given."""

from collections.abc import Iterator
from pathlib import Path

from stages.grpo.settings import GrpoSettings
from stages.harness import declaration as declare
from stages.training import LIBRARIES


def _origins(settings: GrpoSettings, places: declare.DataPlaces) -> Iterator[declare.Origin]:
    for index, part in enumerate(settings.rewards.custom):
        yield declare.Origin(f"grpo.rewards.custom.{index}.file", path=Path(part.file).expanduser())


def _custom_code(settings: GrpoSettings) -> Iterator[declare.CustomCode]:
    for index, part in enumerate(settings.rewards.custom):
        # Called with three arguments: problems, completions and finish reasons.
        where, name = f"grpo.rewards.custom.{index}", part.function
        yield declare.CustomCode(where, part.file, name, "function", "function", part.options, 3, "docs/rl.md")


def _vllm(settings: GrpoSettings) -> declare.Vllm | None:
    if settings.rollout == "transformers":
        return None
    engine, processes = settings.rollout == "vllm", settings.tensor_parallel
    return declare.Vllm("grpo.rollout", engine, processes, cpu_kv_cache_gib=settings.cpu_kv_cache_gib)


def _needs_gpu(settings: GrpoSettings) -> Iterator[declare.NeedsGpu]:
    if settings.sleep or settings.rollout == "vllm_server":
        where, instead = ("sleep", "false") if settings.sleep else ("rollout", "vllm")
        yield declare.NeedsGpu(f"grpo.{where}", "needs a GPU", instead)
    yield from declare.wrong_precision("grpo", settings.dtype)


STAGE = declare.StageDeclaration(
    name="grpo",
    settings=GrpoSettings,
    libraries=(*LIBRARIES, "vllm", "math-verify", "latex2sympy2_extended", "sympy"),
    sources=("evaluation/graders", "evaluation/sandbox"),
    packages=lambda s: s.packages,
    origins=_origins,
    uses_gpu=True,
    several_processes=True,
    splits_model=("FSDP2", "FSDP", "DEEPSPEED", "MEGATRON_LM"),
    makes_checkpoint=True,
    trainer_config="GRPOConfig",
    batch=lambda s: declare.Batch(s.completions_per_step, s.micro_batch_size, "completions", "grpo.prompts_per_step"),
    contexts=lambda s: [declare.Context("grpo.max_model_len", s.max_model_len)],
    completions=lambda s: [declare.Completion("grpo.max_completion_length", s.max_completion_length, s.max_model_len)],
    vllm=_vllm,
    needs_gpu=_needs_gpu,
    disk=lambda s: declare.training_disk(s, s.steps),
    modules=lambda s: [("grpo.trackers", tracker) for tracker in s.trackers],
    custom_code=_custom_code,
    steps_to_a_stop=lambda s: s.steps_per_rollout,
    loads_reference=lambda s: s.beta > 0 and s.lora is None,
)
