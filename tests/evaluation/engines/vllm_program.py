"""Runs vLLM on the cases and prints the samples as JSON: a process of its own, whose environment is set before imports.

usage: python -m tests.evaluation.engines.vllm_program MODEL CHANGED_MODEL
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from evaluation.engines import EngineOptions, SamplingRequest, open_engine, vllm_internals
from tests.evaluation.engines.cases import drawn_requests, greedy_requests, likeliest_requests, penalised_requests


def main(model: str, changed: str) -> dict[str, Any]:
    options = EngineOptions("cpu", "float32", threads=1, max_concurrent=64)
    engine = open_engine("vllm", model, options)
    greedy, drawn = greedy_requests(engine), drawn_requests(engine)
    told: list[int] = []
    found: dict[str, Any] = {
        "name": engine.name,
        "max_model_len": engine.max_model_len,
        "greedy": as_json(engine.generate(greedy, lambda index, sampled: told.append(index))),
        "drawn": as_json(engine.generate(drawn)),
        "drawn_backwards": as_json(engine.generate(drawn[::-1])[::-1]),
        "drawn_alone": as_json([engine.generate([request])[0] for request in drawn[:4]]),
        "penalised": as_json(engine.generate(penalised_requests(engine))),
        "only_the_likeliest": as_json(engine.generate(likeliest_requests(engine))),
        "told": told,
    }
    long = [dataclasses.replace(request, prompt_token_ids=request.prompt_token_ids * 8) for request in drawn[:6]]
    found["long_prompts"] = as_json(engine.generate(long))
    found["long_prompts_alone"] = as_json([engine.generate([request])[0] for request in long])
    unseen = dataclasses.replace(long[0], prompt_token_ids=long[0].prompt_token_ids[::-1])
    found["prompt"] = len(unseen.prompt_token_ids)
    found["computed_before"] = prompt_tokens_computed_before(engine, unseen)
    stop = found["greedy"][0]["text"][5:7]
    found["stopped"] = as_json(engine.generate([dataclasses.replace(greedy[0], stop=(stop,))]))
    flying: list[Any] = []
    lengths = [dataclasses.replace(greedy[0], max_new_tokens=n) for n in (24, 8)]
    engine.generate(lengths, lambda *done: flying.append(dataclasses.asdict(engine.in_flight())))
    found["in_flight"] = flying
    found["fills_the_context"] = as_json(engine.generate([SamplingRequest(greedy[0].prompt_token_ids * 10, 10_000)]))
    try:
        engine.generate([SamplingRequest((5,) * engine.max_model_len, 1)])
    except ValueError as error:
        found["too_long"] = str(error)
    engine.close()
    found["synchronised"] = as_json(weights_loaded_into_a_running_engine(model, changed, options))
    rough = dataclasses.replace(options, dtype="bfloat16")  # whose kernels are others
    found["synchronised_bfloat16"] = as_json(weights_loaded_into_a_running_engine(model, changed, rough))
    engine = open_engine("vllm", changed, rough)
    found["changed_bfloat16"] = as_json(engine.generate(greedy_requests(engine)))
    return found


def prompt_tokens_computed_before(engine: Any, request: SamplingRequest) -> list[int]:
    """Of each of three samples of one prompt, as vLLM tells it."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": list(request.prompt_token_ids)}] * 3
    outputs = engine._llm.generate(prompts, SamplingParams(max_tokens=2), use_tqdm=False)
    return [output.num_cached_tokens for output in outputs]


def weights_loaded_into_a_running_engine(model: str, changed: str, options: EngineOptions) -> list[Any]:
    """Greedy samples of an engine for `model` that then loads the weights of `changed`, one by one as TRL does."""
    vllm_internals.keep_weights_loadable()
    from safetensors.torch import load_file

    engine: Any = open_engine("vllm", model, options)
    live = engine._llm.llm_engine.model_executor.driver_worker.model_runner.model
    for name, tensor in load_file(f"{changed}/model.safetensors").items():
        live.load_weights([(name, tensor)])
    return list(engine.generate(greedy_requests(engine)))


def as_json(samples: list[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(sample) for sample in samples]


if __name__ == "__main__":
    print("FOUND " + json.dumps(main(*sys.argv[1:])))
