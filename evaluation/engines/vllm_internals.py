"""Everything that relies on how vLLM works inside: names that are not in its public interface, and its CPU backend.

Checked with vLLM 0.31; tests/evaluation/engines/test_vllm_internals.py has a canary for each name. Facts about its CPU
backend that this file works around (on a GPU none of them applies):

- vLLM reads its environment when it, or torch, is imported. Its sampler is compiled by inductor, a warm-up of 16 s that
  needs a C++ compiler and gains nothing at small sizes, so compilation is switched off unless it is asked for. Its
  in-process mode keeps the engine in this process, which shares the trainer's random state. Without OMP_NUM_THREADS it
  limits the whole process to one thread.
- Its linear layers hand their weights to a kernel that packs them, and drop the originals, so nothing can be loaded
  into a running engine. Which kernel that is depends on the processor, the number format and the layer's size.
- Chunked prefill with a seed per request raises "CPU Generator does not use offset".
"""

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from evaluation.engines.base import EngineLost, EngineUnavailable, InFlight

UNCOMPILED = "TORCH_COMPILE_DISABLE"
ENVIRONMENT = {
    UNCOMPILED: "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""What has to be set before vLLM is imported on a CPU, beside the number of threads."""

# Relied on by the preflight check of a model's head size. vLLM's own list is
# vllm.v1.attention.backends.cpu_attn.CPUAttentionBackend.get_supported_head_sizes(), which takes seconds to import.
HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM's CPU kernels support."""

SHARED_PROMPT_TOKENS = 32
"""Tokens of a block of vLLM's cache. What prompts have in common is computed once in whole blocks, and so is the prompt
of all samples of a problem. vLLM's own block on a CPU has 128 tokens, as many as a short prompt; 32 is the least that
its kernels take."""

BATCHED_TOKENS = 16_384
"""The most tokens of prompts that one pass on a CPU reads, or as many as the context has."""

# vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm, which linear layers and embeddings import where they
# call it. Relied on by GRPO with vLLM on a CPU: it chooses between oneDNN, with AMX kernels of SGLang's, and zentorch,
# each with a packed copy of a layer's weights, and TRL's weight synchronisation then has nothing to load into, or loads
# what nobody reads. No public option does the same. GRPO compares the sampler's log-probabilities with the trainer's in
# every run.
_CHOOSES_KERNEL = "dispatch_cpu_unquantized_gemm"


def prepare_environment(threads: int, compiled: bool = False) -> None:
    """Set the environment of this process for vLLM on a CPU. Call it before torch and vLLM are imported.

    Args:
        threads: that it computes with, where OMP_NUM_THREADS does not say.
        compiled: whether torch may compile.

    Raises:
        RuntimeError: vLLM has already been imported without this environment, which could not take effect any more.
    """
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if compiled:
        environment[UNCOMPILED] = "0"
    missing = sorted(name for name, value in environment.items() if os.environ.get(name) != value)
    if "vllm" in sys.modules and missing:
        raise RuntimeError(f"vLLM was imported before its CPU environment was set ({', '.join(missing)})")
    os.environ.update(environment)


def keep_weights_loadable() -> None:
    """Make vLLM's linear layers on a CPU compute with the weights that they have, so that `load_weights` works on a
    running engine. Call it before the engine is built. Convolutions (of state-space models) keep the kernels that vLLM
    gives them, and their packed weights.

    Raises:
        EngineUnavailable: this vLLM chooses kernels elsewhere; weights would become stale or fail to load.
    """
    import vllm
    from vllm.model_executor.layers import utils

    choose = getattr(utils, _CHOOSES_KERNEL, None)
    if choose is None:
        raise EngineUnavailable(
            f"vLLM {vllm.__version__} has no vllm.model_executor.layers.utils.{_CHOOSES_KERNEL}: weights cannot be "
            "synchronised into its CPU engine; use the pinned version, or rollout: transformers"
        )
    setattr(utils, _CHOOSES_KERNEL, functools.partial(_plain_linear, choose))


def _plain_linear(choose: Any, layer: Any, remove_weight: bool) -> None:
    """Give a linear layer torch's kernel, which packs nothing; what is none gets what vLLM chooses."""
    import torch

    if layer.weight.ndim == 2:
        layer.cpu_linear = torch.nn.functional.linear
    else:
        choose(layer, remove_weight)


# vllm.v1.sample.ops.topk_topp_sampler, whose forward_cpu calls these two by name for requests with a seed. It draws one
# exponential number for each entry of the vocabulary and request, and without effect as many again for all requests
# together: with 49,152 entries that is most of the time of sampling from a model of 135 million parameters.


def draw_one_number_a_token() -> None:
    """Make vLLM's sampler on a CPU draw a token of a request that has a seed from one number instead of one for each
    entry of the vocabulary, by inverting the cumulative distribution. The distribution is the same, the draws are not.

    Raises:
        EngineUnavailable: this vLLM has no such functions, and would go on as slowly.
    """
    from vllm.v1.sample.ops import topk_topp_sampler as sampler

    replaced = {"empty_exponential_noise_like": _one_a_row, "sample_with_exponential_noise": _first_beyond}
    if missing := [name for name in replaced if not hasattr(sampler, name)]:
        raise EngineUnavailable(f"vLLM's CPU sampler has no {missing[0]} any more; use the pinned version")
    for name, function in replaced.items():
        setattr(sampler, name, function)


def _one_a_row(probabilities: Any, use_fp64_gumbel: bool) -> Any:
    return probabilities.new_empty((len(probabilities), 1))


def _first_beyond(probabilities: Any, exponential: Any) -> Any:
    """The index of each row at which the cumulative probability first exceeds a uniform number in [0, total)."""
    import torch

    cumulative = probabilities.double().cumsum(-1)  # in float32 the tail of a large vocabulary would be rounding
    uniform = (-(-exponential.double()).expm1()).clamp(max=1 - 2**-50)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)


def cpu_engine_arguments(max_batched_tokens: int, kv_cache_gib: int, compiled: bool = False) -> dict[str, Any]:
    """Arguments of `vllm.LLM` on a CPU: no chunked prefill, a fixed cache size in GiB, shared prompts, and a model that
    is compiled or not."""
    return {
        "enforce_eager": not compiled,
        "enable_chunked_prefill": False,
        "block_size": SHARED_PROMPT_TOKENS,
        "max_num_batched_tokens": max_batched_tokens,
        "kv_cache_memory_bytes": kv_cache_gib << 30,
    }


# vllm.config.reasoning.ReasoningConfig, which EngineArgs takes; its strings are tokenised by the model's tokenizer.
# Relied on by thinking budgets. The public way, a reasoning parser, is named after a family of models, and what such a
# parser forces or counts differs from one to the other. The end is the bare tag: with a phrase before it, vLLM does not
# see a thought that the model ends itself, and writes the phrase into the answer (vLLM's issue 39697).


def thinking_between(start: str, end: str) -> Any:
    """The `reasoning_config` of a `vllm.LLM` whose requests may limit the thinking between two tags."""
    from vllm.config.reasoning import ReasoningConfig

    return ReasoningConfig(reasoning_start_str=start, reasoning_end_str=end)


# vllm.LLM.llm_engine with model_config, add_request, has_unfinished_requests and step. Relied on by VLLMEngine, which
# hands over each sample when it is finished, so that a stopped stage keeps it. The public LLM.generate returns when all
# are finished; the public asynchronous engine needs a process of its own. On a GPU the model is in another process, and
# EngineDeadError says that this has ended.


def max_model_len(llm: Any) -> int:
    """The context length of a `vllm.LLM`, in tokens."""
    return int(llm.llm_engine.model_config.max_model_len)


def finished_outputs(llm: Any, requests: Iterable[tuple[str, Any, Any]]) -> Iterator[Any]:
    """Submit (id, prompt, sampling parameters) to a `vllm.LLM`; yield each `RequestOutput` when it is finished.

    Raises `EngineLost` where the process of the engine has ended.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    engine = llm.llm_engine
    try:
        for request in requests:
            engine.add_request(*request)
        while engine.has_unfinished_requests():
            yield from (output for output in engine.step() if output.finished)
    except EngineDeadError as error:
        raise EngineLost("vLLM's process died while it sampled; its messages are in the stage's log") from error


# LLMEngine.output_processor.request_states, where each unfinished request's detokenizer has its tokens, in whichever
# process the model is. Relied on by the progress of a long sampling: outputs come at the end of a request alone, and
# the scheduler's statistics count no tokens and stay in the model's process.


def in_flight(llm: Any) -> InFlight:
    """The requests of a `vllm.LLM` that have tokens and are not finished. Takes milliseconds, from any thread."""
    states = llm.llm_engine.output_processor.request_states.copy().values()
    tokens = [state.detokenizer.num_output_tokens() for state in states]
    return InFlight(sum(map(bool, tokens)), sum(tokens))
