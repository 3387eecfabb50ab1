"""Inputs of the GRPO stage: a tiny model that has learnt how an answer looks, so that rewards differ in a group."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Problem
from tests.tiny import make_tiny_model, tiny_demonstrations, write_jsonl

CODE_TESTS = {"entry_point": "f", "setup": "", "asserts": ["assert f(3) == 6"]}


@pytest.fixture(scope="session")
def grpo_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """40 RL problems, sums and one program, and a model that mostly boxes an answer; a prompt is too long for it."""
    folder = tmp_path_factory.mktemp("grpo_inputs")
    teach_form(make_tiny_model(folder / "base" / "model", hidden_size=128))
    problems = []
    for row in tiny_demonstrations(40, seed=7):
        gold = row["completion"][0]["content"].partition("\\boxed{")[2].rstrip("}")
        problems.append(dataclasses.asdict(Problem(row["id"], "sums", "maths", row["prompt"][0]["content"], gold)))
    problems[5]["prompt"] *= 20
    prompt, gold = "Write f(x) that doubles x.", "def f(x):\n    return 2 * x"
    program = Problem("double", "programs", "code", prompt, gold, CODE_TESTS)
    problems[6] = dataclasses.asdict(program)
    write_jsonl(folder / "data" / "rl.jsonl", problems)
    return {"data": folder / "data", "model": folder / "base"}


def teach_form(folder: Path, steps: int = 120, rows: int = 16) -> None:
    """A few steps of plain supervised training on demonstrations, in place."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        for row in tiny_demonstrations(steps * rows)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for start in range(0, len(texts), rows):
        batch = tokenizer(texts[start : start + rows], padding=True, return_tensors="pt", add_special_tokens=False)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def dev_inputs(grpo_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs with ten dev problems beside."""
    lines = (grpo_inputs["data"] / "rl.jsonl").read_text(encoding="utf-8").splitlines()
    folder = tmp_path_factory.mktemp("dev")
    write_jsonl(
        folder / "dev.jsonl", [{**json.loads(line), "id": f"dev-{number}"} for number, line in enumerate(lines[10:20])]
    )
    return {**grpo_inputs, "dev": folder}
