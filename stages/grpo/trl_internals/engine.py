"""vLLM's engine as TRL builds it, with arguments that TRL has no option for."""

import functools
from typing import Any

import trl.generation.vllm_generation as vllm_generation

from evaluation.engines import EngineUnavailable, vllm_internals
from evaluation.engines.vllm_engine import require_vllm
from stages.grpo.settings import GrpoSettings
from stages.harness.context import Context, StageError


def configure_engine(ctx: Context[GrpoSettings]) -> None:
    """Give TRL's vLLM engine the run's dtype, and on a CPU keep its weights loadable. Call before the trainer is built.

    vLLM's own choice for a float32 checkpoint is a 16-bit type, and TRL has no option for it: this relies on TRL
    building the engine by the name `LLM` of its module. Raises StageError where vLLM or TRL cannot be configured so.
    """
    arguments: dict[str, Any] = {"dtype": ctx.settings.dtype, "disable_log_stats": True}
    try:
        require_vllm(ctx.machine.device)
        if ctx.machine.device == "cpu":
            vllm_internals.keep_weights_loadable()
            arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": ctx.settings.cpu_kv_cache_gib << 30}
            arguments["block_size"] = vllm_internals.SHARED_PROMPT_TOKENS
    except EngineUnavailable as error:
        raise StageError(str(error), "Install the pinned set, or choose `grpo.rollout: transformers`.") from error
    if not hasattr(vllm_generation, "LLM"):
        fix = "Install the pinned versions, or choose `grpo.rollout: transformers`."
        raise StageError("this TRL does not build vLLM's engine where it did", fix)
    import vllm

    vllm_generation.LLM = functools.partial(vllm.LLM, **arguments)
