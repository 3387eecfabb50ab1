"""Inputs of the SFT stage: a tiny model and demonstrations for it, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.harness.context import Context
from stages.sft.settings import SftSettings
from tests.tiny import make_tiny_model, open_stage, tiny_demonstrations, write_jsonl, write_spec

BRIEF = {"batch_size": 8, "learning_rate": 2e-3, "max_length": 128, "max_steps": 3}


@pytest.fixture(scope="session")
def sft_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sft_inputs")
    make_tiny_model(folder / "base" / "model")
    write_jsonl(folder / "data" / "sft.jsonl", tiny_demonstrations(40))
    return {"data": folder / "data", "model": folder / "base"}


@pytest.fixture
def sft_context(sft_inputs: dict[str, Path], tmp_path: Path) -> Callable[..., Context[SftSettings]]:
    """Makes the context of a short SFT run in its own folder; keyword arguments are settings."""

    def make(name: str = "run", inputs: dict[str, Path] | None = None, **settings: Any) -> Context[SftSettings]:
        spec = write_spec(tmp_path / name, "sft", {**BRIEF, **settings}, {**sft_inputs, **(inputs or {})})
        context: Context[SftSettings] = open_stage(SftSettings, spec)
        return context

    return make
