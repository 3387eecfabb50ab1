"""Metrics as modules of Hugging Face `evaluate`, shipped with the package, so that loading one asks no hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODULES = ("accuracy_ci", "pass_at_k")


def load_metric(name: str) -> Any:
    """The `evaluate.EvaluationModule` called `name`: `compute(predictions=0-or-1 a sample, references=problem id a sample)`."""
    if name not in MODULES:
        raise ValueError(f"unknown metric {name!r}; there are {', '.join(MODULES)}")
    import evaluate

    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)
