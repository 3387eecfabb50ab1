"""vLLM as an `Engine`: all requests are submitted at once, and each sample is handed over when it is finished."""

import gc
import importlib.util
from collections.abc import Sequence
from typing import Any

from evaluation.engines import vllm_internals
from evaluation.engines.base import (
    EngineOptions,
    EngineUnavailable,
    InFlight,
    OnDone,
    Sampled,
    SamplingRequest,
    check_room,
    load_tokenizer,
    text_of,
)
from evaluation.thinking import TAGS, how_thinking_ended, thinking_tokens


def require_vllm(device: str) -> None:
    """Raise `EngineUnavailable` where vLLM is not installed; does not import it."""
    if importlib.util.find_spec("vllm") is None:
        extra = "cuda" if device == "cuda" else "cpu"
        raise EngineUnavailable(
            f"vLLM is not installed: install the pinned set (requirements/{extra}.txt, extra `{extra}`), "
            "or set engine: transformers"
        )


class VLLMEngine:
    """A checkpoint loaded in vLLM's offline engine.

    On a CPU the engine is in this process, with the environment of `vllm_internals`. On CUDA vLLM's own defaults apply;
    dtype, share of memory and tensor parallelism come from the options.
    """

    name = "vllm"

    def __init__(self, model: str, options: EngineOptions) -> None:
        require_vllm(options.device)
        if options.device == "cpu":
            vllm_internals.prepare_environment(options.threads, options.cpu_compile)
        self.tokenizer = load_tokenizer(model, chat=False)  # tokens come rendered
        import vllm

        if options.device == "cpu":
            vllm_internals.draw_one_number_a_token()
        self.version: str = vllm.__version__
        self._llm: Any = vllm.LLM(
            model=model,
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            max_num_seqs=options.max_concurrent,
            disable_log_stats=True,
            seed=0,  # every request that draws has its own seed
            reasoning_config=vllm_internals.thinking_between(*TAGS) if options.thinking else None,
            **_device_arguments(model, options),
        )
        self.max_model_len: int = vllm_internals.max_model_len(self._llm)

    def generate(self, requests: Sequence[SamplingRequest], on_done: OnDone | None = None) -> list[Sampled]:
        """See `Engine.generate`. Requests keep their order in the queue, so put the long ones first."""
        from vllm import TokensPrompt

        check_room(requests, self.max_model_len)
        submitted = (
            (str(index), TokensPrompt(prompt_token_ids=list(request.prompt_token_ids)), _sampling_params(request))
            for index, request in enumerate(requests)
        )
        done: dict[int, Sampled] = {}
        for output in vllm_internals.finished_outputs(self._llm, submitted):
            index, completion = int(output.request_id), output.outputs[0]
            if completion.finish_reason not in ("stop", "length"):
                raise RuntimeError(f"vLLM ended request {index} with {completion.finish_reason!r}")
            request, ids = requests[index], completion.token_ids
            text, budget = text_of(self.tokenizer, ids, request.stop), request.thinking_budget
            thinking = None
            if budget is not None:
                tags = thinking_tokens(self.tokenizer)
                thinking = how_thinking_ended(request.prompt_token_ids, ids, tags, budget)
            done[index] = Sampled(text, len(ids), completion.finish_reason, thinking)
            if on_done is not None:
                on_done(index, done[index])
        return [done[index] for index in range(len(requests))]

    def in_flight(self) -> InFlight:
        """See `Engine.in_flight`."""
        return vllm_internals.in_flight(self._llm)

    def close(self) -> None:
        """Drop the engine; on CUDA, memory is certain to be free only when the process ends."""
        self._llm = None
        gc.collect()


def _device_arguments(model: str, options: EngineOptions) -> dict[str, Any]:
    if options.device == "cuda":
        return {
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "tensor_parallel_size": options.tensor_parallel,
        }
    return vllm_internals.cpu_engine_arguments(
        max(_context(model, options), vllm_internals.BATCHED_TOKENS), options.cpu_kv_cache_gib, options.cpu_compile
    )


def _context(model: str, options: EngineOptions) -> int:
    """Context length in tokens; without chunked prefill one batch must hold the longest prompt."""
    if options.max_model_len is not None:
        return options.max_model_len
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings)


def _sampling_params(request: SamplingRequest) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    greedy = request.temperature == 0
    return SamplingParams(
        temperature=request.temperature,
        top_p=1.0 if greedy else request.top_p,
        top_k=0 if greedy else request.top_k,
        min_p=0.0 if greedy else request.min_p,
        repetition_penalty=request.repetition_penalty,
        max_tokens=request.max_new_tokens,
        seed=None if greedy else request.seed,
        stop=list(request.stop) or None,
        thinking_token_budget=request.thinking_budget,
        detokenize=bool(request.stop),  # only stop strings need it; texts are decoded the same way for every engine
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
