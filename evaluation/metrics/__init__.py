"""Metrics as modules of Hugging Face `evaluate`, shipped with the package, so that loading one asks no hub."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

MODULES = ("accuracy_ci", "maj_at_k", "pass_at_k")


def load_metric(name: str) -> Any:
    """The `evaluate.EvaluationModule` called `name`: `compute(predictions=0-or-1 a sample, references=problem id a sample)`."""
    if name not in MODULES:
        raise ValueError(f"unknown metric {name!r}; there are {', '.join(MODULES)}")
    return _evaluate().load(str(Path(__file__).parent / name), keep_in_memory=True)


def _evaluate() -> ModuleType:
    """The library, imported without transformers, which only its `evaluator` would use and which brings torch: seconds at each start.

    A None in `sys.modules` makes an import fail as if the package were not installed, which `evaluate` provides for.
    """
    hide = "evaluate" not in sys.modules and "transformers" not in sys.modules
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    if hide:
        modules["transformers"] = None
    try:
        import evaluate
    finally:
        if hide:
            del modules["transformers"]
    return cast("ModuleType", evaluate)
