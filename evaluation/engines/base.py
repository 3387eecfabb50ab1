"""The interface that all sampling engines share: token ids in, text and a finish reason out.

One request is one sample with its own seed, so that neither the order of requests nor the rest of the batch decides
what is drawn. (The arithmetic of a batch still depends on its shape in the last bits; in float32 that changes a token
only where two are nearly tied.)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from evaluation.chat import check_chat_template, pin_date
from evaluation.records import ThoughtEnding

UNKNOWN = "unknown"
"""What stands in a protocol where a server does not say; `evaluation.comparison` looks for it."""


class EngineUnavailable(RuntimeError):
    """The chosen engine is not installed or cannot run here; the message names what to install or set."""


class EngineLost(RuntimeError):
    """The process that computes for an engine ended before its work was done; what was handed over is valid."""


@dataclasses.dataclass(frozen=True)
class SamplingRequest:
    """One completion to sample.

    Attributes:
        prompt_token_ids: the rendered prompt, special tokens included; empty for a served model, which renders it.
        max_new_tokens: limit on completion tokens; the context length limits it further.
        seed: seed of this sample's own random stream; required unless greedy, where nothing is drawn.
        temperature: 0 is greedy decoding.
        top_p: nucleus mass; 1 switches it off.
        top_k: number of candidates; 0 switches it off.
        min_p: least probability of a candidate, as a share of the likeliest token's; applied before top_k and top_p.
        repetition_penalty: divides positive logits, and multiplies negative ones, of every token so far, those of the
            prompt included, greedy or not; 1 switches it off.
        stop: strings that end the completion; they are not part of it.
        thinking_budget: tokens after which a thought is ended for the model; None lets it think. Only vLLM can, opened
            with `EngineOptions.thinking`.
        messages: of a served model: the conversation, as (role, content).
        text: of a served model: the beginning of a text to go on with, in place of `messages`.
        template_options: of a served model: variables of its chat template, as (name, value).
    """

    prompt_token_ids: tuple[int, ...]
    max_new_tokens: int
    seed: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    thinking_budget: int | None = None
    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    template_options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not (self.prompt_token_ids or self.messages or self.text):
            raise ValueError("a request needs at least one prompt token")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature > 0 and self.seed is None:
            raise ValueError("a request with a temperature above 0 needs a seed")


@dataclasses.dataclass(frozen=True)
class Sampled:
    """One completion: its text, its number of tokens (the end-of-turn token counts), and `stop` or `length`.

    `thinking` says how its thoughts ended, where the request had a budget for them. `served` is what a server says of
    it: prompt_tokens, and where given reasoning_tokens, prompt_token_ids, token_ids, logprobs and fingerprint.
    """

    text: str
    tokens: int
    finish_reason: str
    thinking: ThoughtEnding | None = None
    served: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class InFlight:
    """Completions that have begun and are not handed over yet, and how many tokens they have so far, together."""

    running: int
    tokens: int


OnDone = Callable[[int, Sampled], None]
"""Called with the index of a request and its sample as soon as it is finished, in any order."""


class Engine(Protocol):
    """A loaded model that samples. `max_model_len` bounds prompt plus completion, in tokens."""

    name: str
    version: str
    tokenizer: Any
    max_model_len: int

    def generate(self, requests: Sequence[SamplingRequest], on_done: OnDone | None = None) -> list[Sampled]:
        """Sample all requests together; the result is in their order.

        Raises:
            ValueError: a prompt fills the context.
        """
        ...

    def in_flight(self) -> InFlight:
        """What is being sampled just now. Asked from another thread than the one that is in `generate`."""
        ...

    def close(self) -> None:
        """Release the model's memory."""
        ...


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """How to load a model. `dtype`, `max_model_len` and `cpu_compile` change results; the rest is use of the machine.

    Attributes:
        device: `cpu` or `cuda`.
        dtype: `float32`, `bfloat16` or `float16`.
        max_model_len: context in tokens; None takes the model's own.
        threads: CPU threads.
        max_concurrent: samples in flight at once.
        gpu_memory_utilization: share of the GPU's memory for vLLM (cuda only).
        tensor_parallel: number of GPUs that share one model (cuda only).
        data_parallel: number of engines, each with its own part of the GPUs or threads.
        cpu_kv_cache_gib: memory for vLLM's key-value cache in GiB (cpu only).
        cpu_compile: whether vLLM compiles the model (cpu only), for which it takes a C++ compiler and a minute or more.
        thinking: whether requests may have a thinking budget.
    """

    device: str
    dtype: str
    max_model_len: int | None = None
    threads: int = 1
    max_concurrent: int = 256
    gpu_memory_utilization: float = 0.9
    tensor_parallel: int = 1
    data_parallel: int = 1
    cpu_kv_cache_gib: int = 1
    cpu_compile: bool = False
    thinking: bool = False


def check_room(requests: Sequence[SamplingRequest], max_model_len: int) -> None:
    """Raise ValueError when a prompt fills the context, so that no engine cuts or drops it silently."""
    for index, request in enumerate(requests):
        if (tokens := len(request.prompt_token_ids)) >= max_model_len:
            raise ValueError(f"request {index}: {tokens} prompt tokens leave no room in a context of {max_model_len}")


def text_of(tokenizer: Any, token_ids: Sequence[int], stop: Sequence[str]) -> str:
    """The text of a completion, the same way for every engine: no special tokens, cut before the first stop string."""
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    ends = [place for place in (text.find(string) for string in stop) if place >= 0]
    return text[: min(ends)] if ends else text


def load_tokenizer(model: str, chat: bool = True, date: str | None = None, revision: str = "main") -> Any:
    """The tokenizer of a checkpoint folder or hub id, for conversations as of `date` (see `evaluation.chat.pin_date`).

    Raises:
        ValueError: `chat` asks for a chat template, and it has none that can be used.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    pin_date(tokenizer, date)
    if chat:
        try:
            check_chat_template(tokenizer)
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from error
    return tokenizer


def end_token_ids(tokenizer: Any, generation_config: Any) -> list[int]:
    """Every token that ends a completion: those of the generation config and the tokenizer's own."""
    declared = generation_config.eos_token_id
    ids = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    return ids
