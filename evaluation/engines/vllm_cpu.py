"""Everything that is special about vLLM on a CPU. On a GPU none of this applies.

Facts about vLLM 0.31 that this file works around:

- It reads its environment when it, or torch, is imported. Its sampler is compiled by inductor, a 16 s warm-up that needs a C++
  compiler and gains nothing at small sizes, so compilation is switched off. Its in-process mode keeps the engine in this process,
  where the trainer's random state is also its own. Without OMP_NUM_THREADS it cuts the whole process to one thread.
- Its linear layers hand their weights to oneDNN and drop the originals, so nothing can be loaded into a running engine. TRL's
  weight synchronisation needs them: `keep_weights_loadable` makes vLLM use the plain linear kernel on the live weights. The name it
  sets is private; `keep_weights_loadable` raises when it is gone, and GRPO checks the sampling log-probabilities in every run.
- Chunked prefill with a seed per request raises "CPU Generator does not use offset".
"""

from __future__ import annotations

import os
import sys
from typing import Any

from evaluation.engines.base import EngineUnavailable

ENVIRONMENT = {
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""What has to be set before vLLM is imported, beside the number of threads."""

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that its CPU kernels are made for."""

_ONEDNN_SWITCH = "_supports_onednn"


def prepare_environment(threads: int) -> None:
    """Set the environment of this process for vLLM on a CPU. Call it before torch and vLLM are imported.

    Raises:
        RuntimeError: vLLM was imported already without this environment, which could not take effect any more.
    """
    wanted = {**ENVIRONMENT, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    missing = sorted(name for name, value in wanted.items() if os.environ.get(name) != value)
    if "vllm" in sys.modules and missing:
        raise RuntimeError(f"vLLM was imported before its CPU environment was set ({', '.join(missing)})")
    os.environ.update(wanted)


def keep_weights_loadable() -> None:
    """Make vLLM's linear layers keep their weights, so that `load_weights` works on a running engine. Call before it is built.

    Raises:
        EngineUnavailable: this vLLM has no such switch; weights would go stale or fail to load.
    """
    import vllm
    import vllm._custom_ops as ops

    if not hasattr(ops, _ONEDNN_SWITCH):
        raise EngineUnavailable(
            f"vLLM {vllm.__version__} has no vllm._custom_ops.{_ONEDNN_SWITCH}: weights cannot be synchronised into its CPU engine; "
            "use the pinned version, or rollout: transformers"
        )
    setattr(ops, _ONEDNN_SWITCH, False)


def engine_arguments(max_batched_tokens: int, kv_cache_gib: int) -> dict[str, Any]:
    """Arguments of `vllm.LLM` on a CPU: no graphs, no chunked prefill, a fixed cache size in GiB."""
    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "max_num_batched_tokens": max_batched_tokens,
        "kv_cache_memory_bytes": kv_cache_gib << 30,
    }
