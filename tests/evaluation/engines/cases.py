"""What the engine tests ask for: the same requests for every engine."""

from __future__ import annotations

from evaluation.engines import Engine, SamplingRequest

PROMPTS = ("Mia has 3 coins and gets 4. How many now?", "Tom has 9 coins.", "a", "2+2=")
GREEDY_TOKENS = 24


def prompt_ids(engine: Engine) -> list[tuple[int, ...]]:
    """Token ids of the prompts, as plain text."""
    return [tuple(engine.tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in PROMPTS]


def greedy_requests(engine: Engine) -> list[SamplingRequest]:
    """One greedy request per prompt."""
    return [SamplingRequest(ids, GREEDY_TOKENS) for ids in prompt_ids(engine)]


def penalised_requests(engine: Engine) -> list[SamplingRequest]:
    """The greedy ones with a strong penalty on repetition."""
    return [SamplingRequest(ids, GREEDY_TOKENS, repetition_penalty=1.5) for ids in prompt_ids(engine)]


def likeliest_requests(engine: Engine) -> list[SamplingRequest]:
    """Draws from the tokens that are as likely as the likeliest: greedy decoding by another way."""
    return [SamplingRequest(ids, GREEDY_TOKENS, seed=1, temperature=1.0, min_p=1.0) for ids in prompt_ids(engine)]


def drawn_requests(engine: Engine) -> list[SamplingRequest]:
    """Three draws per prompt, plain and truncated, in two lengths."""
    plain = [
        SamplingRequest(ids, 12 + 8 * (k % 2), seed=k, temperature=1.0) for ids in prompt_ids(engine) for k in range(3)
    ]
    narrow = [
        SamplingRequest(ids, 12, seed=k, temperature=0.7, top_p=0.8, top_k=20)
        for ids in prompt_ids(engine)
        for k in range(3)
    ]
    return plain + narrow
