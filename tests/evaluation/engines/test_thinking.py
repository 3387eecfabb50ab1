"""Thinking budgets: what vLLM does with them, and what is said of how a thought ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation.thinking import TAGS, how_thinking_ended, thinking_tokens
from tests.evaluation.engines.thinking_program import BUDGETS, NEW_TOKENS
from tests.tiny import make_tiny_model, make_tiny_tokenizer, stage_environment

OPEN, CLOSE = 91, 92
"""Token ids of the tags in examples; all others are words."""


@pytest.mark.parametrize(
    ("prompt", "completion", "ending"),
    [
        ([1], [2, 3], "none"),
        ([1], [CLOSE, 3], "none"),
        ([1, OPEN, CLOSE], [2, 3], "none"),
        ([1], [OPEN, 2, CLOSE, 3], "finished"),
        ([1, OPEN], [2, 3, CLOSE, 4], "finished"),
        ([1], [OPEN, 2, 3, 4, CLOSE, 5], "forced"),
        ([1, OPEN], [2, 3, 4, CLOSE, 5], "forced"),
        ([1, OPEN, 2], [3, 4, CLOSE], "forced"),
        ([1, OPEN, 2, 3, 4], [CLOSE, 5], "forced"),
        ([1], [OPEN, 2], "cut"),
        ([1, OPEN], [], "cut"),
        ([1, OPEN], [2, 3, CLOSE, 4, OPEN], "cut"),
        ([1], [OPEN, 2, 3, 4, CLOSE, OPEN, CLOSE, 5], "forced"),
        ([1], [OPEN, OPEN, 2, CLOSE, 5], "finished"),
        ([OPEN, 1, 2, 3, CLOSE, 4], [OPEN, CLOSE], "finished"),
    ],
)
def test_how_a_thought_of_three_tokens_at_most_ended(prompt: list[int], completion: list[int], ending: str) -> None:
    assert how_thinking_ended(prompt, completion, (OPEN, CLOSE), 3) == ending


def test_a_model_without_tokens_for_its_thoughts_has_no_budget() -> None:
    tokenizer = make_tiny_tokenizer()
    with pytest.raises(ValueError, match="no tokens of their own for <think> and </think>"):
        thinking_tokens(tokenizer)
    tokenizer.add_tokens(["<think>"])
    with pytest.raises(ValueError, match="no tokens of their own"):
        thinking_tokens(tokenizer)
    tokenizer.add_tokens(["</think>"])
    assert thinking_tokens(tokenizer) == (len(tokenizer) - 2, len(tokenizer) - 1)


def make_thinking_model(folder: Path) -> tuple[int, int]:
    """A random model that opens and closes thoughts every few tokens; returns the ids of its tags."""
    import torch
    from transformers import AutoModelForCausalLM

    make_tiny_model(folder, hidden_size=128)
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(list(TAGS))
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    opens, closes = thinking_tokens(tokenizer)
    with torch.no_grad():  # a text of 30 likely tokens, of which the tags are two
        model.get_input_embeddings().weight[:] = 0
        model.get_input_embeddings().weight[40:68, 0] = 1.0
        model.get_input_embeddings().weight[[opens, closes], 0] = 1.0
        model.model.norm.weight[:] = 2.0
    model.save_pretrained(folder)
    return opens, closes


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("thinking")
    tags = make_thinking_model(folder)
    command = [sys.executable, "-m", "tests.evaluation.engines.thinking_program", str(folder)]
    done = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return {"tags": tags, **json.loads(line.removeprefix("FOUND "))}


@pytest.mark.slow
def test_vllm_ends_each_thought_at_its_budget_and_what_is_said_of_it_is_so(found: dict[str, Any]) -> None:
    opens, closes = found["tags"]
    endings: dict[int, Counter[str]] = {budget: Counter() for budget in BUDGETS}
    for sample in found["samples"]:
        if (budget := sample["budget"]) is None:
            assert sample["thinking"] is None
            continue
        lengths, length = [], None
        for token in [*found["prompts"][sample["prompt"]], *sample["token_ids"]]:
            if token == closes and length is not None:
                lengths.append(length)
                length = None
            elif length is not None:
                length += 1
            elif token == opens:
                length = 0
        of_prompt = len(found["prompts"]["opened"]) - 1 - found["prompts"]["opened"].index(opens)
        assert max([*lengths, length or 0]) <= max(budget, of_prompt), sample
        endings[budget][sample["thinking"]] += 1
    assert endings[0]["forced"] > 0
    assert endings[0]["finished"] == 0
    assert endings[7]["forced"] > 0
    assert endings[20]["finished"] > endings[7]["finished"] > 0
    assert sum(of_budget["cut"] for of_budget in endings.values()) > 0
    free = [sample for sample in found["samples"] if sample["budget"] is None and sample["prompt"] == "opened"]
    assert max(len(sample["token_ids"]) for sample in free) == NEW_TOKENS
