"""The generate stage: one engine load samples a checkpoint on all benchmarks; or a server samples its model."""

import dataclasses
from collections.abc import Iterator

from stages.generate.settings import PROMPT_SETS, GenerateSettings
from stages.harness.declaration import Completion, Context, StageDeclaration, Vllm, wrong_precision


def _completions(settings: GenerateSettings) -> Iterator[Completion]:
    for index, benchmark in enumerate(settings.benchmarks):
        of_rl = benchmark.name in PROMPT_SETS
        setting = "grpo.max_completion_length" if of_rl else f"benchmarks.{index}.max_new_tokens"
        yield Completion(setting, benchmark.max_new_tokens, settings.max_model_len)


def _vllm(settings: GenerateSettings) -> Vllm | None:
    if settings.engine != "vllm":
        return None
    return Vllm(
        "generate.engine",
        tensor_parallel=settings.tensor_parallel,
        data_parallel=settings.data_parallel,
        cpu_kv_cache_gib=settings.cpu_kv_cache_gib,
        cpu_compile=settings.cpu_compile,
    )


def _environment(settings: GenerateSettings) -> Iterator[tuple[str, str]]:
    if settings.server is not None and settings.server.api_key_env is not None:
        yield "generate.server.api_key_env", settings.server.api_key_env


STAGE = StageDeclaration(
    name="generate",
    settings=GenerateSettings,
    libraries=("torch", "transformers", "tokenizers", "vllm"),
    uses_gpu=True,
    deterministic_on_gpu=lambda s: s.engine == "vllm",
    contexts=lambda s: [Context("generate.max_model_len", s.max_model_len)],
    completions=_completions,
    vllm=_vllm,
    needs_gpu=lambda s: wrong_precision("generate", s.dtype),
)
SERVED = dataclasses.replace(STAGE, libraries=(), uses_gpu=False, needs_gpu=lambda s: [], environment=_environment)
"""The same stage where a server computes: with no library here, and no GPU."""
