"""Runs vLLM with thinking budgets and prints token ids as JSON: a process of its own, for the environment of vLLM.

usage: python -m tests.evaluation.engines.thinking_program MODEL
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from evaluation.engines import EngineOptions, SamplingRequest, open_engine, vllm_internals

BUDGETS = (0, 1, 7, 20)
NEW_TOKENS, SEEDS = 40, 40


def main(model: str) -> dict[str, Any]:
    engine: Any = open_engine(
        "vllm", model, EngineOptions("cpu", "float32", threads=1, max_concurrent=64, thinking=True)
    )
    token_ids: list[list[int]] = []
    finished = vllm_internals.finished_outputs

    def noted(*arguments: Any) -> Any:
        """What the engine got from vLLM, in the order of the requests."""
        outputs = list(finished(*arguments))
        token_ids.extend(list(o.outputs[0].token_ids) for o in sorted(outputs, key=lambda o: int(o.request_id)))
        return outputs

    vllm_internals.finished_outputs = noted
    prompts = {"opened": "Mia has 3 coins.<think>\n", "not opened": "Mia has 3 coins."}
    ids = {name: tuple(engine.tokenizer(text, add_special_tokens=False)["input_ids"]) for name, text in prompts.items()}
    cases = [
        (name, budget, SamplingRequest(ids[name], NEW_TOKENS, seed, 1.0, thinking_budget=budget))
        for name in prompts
        for budget in (*BUDGETS, None)
        for seed in range(SEEDS)
    ]
    sampled = engine.generate([request for _, _, request in cases])
    return {
        "prompts": ids,
        "samples": [
            {"prompt": name, "budget": budget, "token_ids": tokens, **dataclasses.asdict(sample)}
            for (name, budget, _), tokens, sample in zip(cases, token_ids, sampled, strict=True)
        ],
    }


if __name__ == "__main__":
    print("FOUND " + json.dumps(main(*sys.argv[1:])))
