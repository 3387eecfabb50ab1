"""What the tests of the generate stage sample: a tiny model on two benchmarks with the same prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Problem
from tests.tiny import make_tiny_model, tiny_demonstrations, write_jsonl


def problem(benchmark: str, number: int, prompt: str) -> dict[str, Any]:
    return dataclasses.asdict(Problem(f"{benchmark}-{number}", benchmark, "maths", prompt, "3"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two benchmarks of eight problems; the third problem's prompt is longer than the model's 256 positions."""
    folder = tmp_path_factory.mktemp("generate_inputs")
    make_tiny_model(folder / "base" / "model", hidden_size=128)
    prompts = [row["prompt"][0]["content"] for row in tiny_demonstrations(8)]
    prompts[2] *= 20
    for name in ("first", "second"):
        write_jsonl(
            folder / "data" / "benchmarks" / f"{name}.jsonl",
            [problem(name, i, prompt) for i, prompt in enumerate(prompts)],
        )
    return {"data": folder / "data", "model": folder / "base"}
