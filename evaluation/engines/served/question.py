"""What a served model is asked: the path and the body of one request."""

from typing import Any

from evaluation.engines.base import SamplingRequest

OFF = {"vLLM": 0, "SGLang": -1, "llama.cpp": 0}
"""Servers that draw with defaults of their own where a request is silent, each with the `top_k` that means all."""
PENALTY = {"llama.cpp": "repeat_penalty"}


def question(request: SamplingRequest, kind: str, limit_field: str, *, logprobs: bool) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request.

    A server whose defaults are known is told what is off; of another only what is on is asked, which hosted APIs
    refuse where they cannot do it.

    Args:
        kind: of the server, as `ServerFacts` has it.
        limit_field: the name of the limit of new tokens.
    """
    greedy = request.temperature == 0
    body: dict[str, Any] = {
        limit_field: request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": 1.0 if greedy else request.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    top_k = 0 if greedy else request.top_k
    if kind in OFF or top_k:
        body["top_k"] = top_k or OFF[kind]
    if kind in OFF or (request.min_p and not greedy):
        body["min_p"] = 0.0 if greedy else request.min_p
    if kind in OFF or request.repetition_penalty != 1:
        body[PENALTY.get(kind, "repetition_penalty")] = request.repetition_penalty
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if kind == "vLLM":
        body["return_token_ids"] = True
    if request.template_options:
        body["chat_template_kwargs"] = dict(request.template_options)
    if request.messages:
        body["messages"] = [{"role": role, "content": content} for role, content in request.messages]
        return "/chat/completions", {**body, **({"logprobs": True} if logprobs else {})}
    return "/completions", {**body, "prompt": request.text, **({"logprobs": 0} if logprobs else {})}
