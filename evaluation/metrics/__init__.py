"""The metrics as a module of Hugging Face `evaluate` that is part of the package, so that loading one asks no hub."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

METRICS = ("accuracy_ci", "maj_at_k", "pass_at_k")


def load_metric(name: str) -> Any:
    """The `evaluate.EvaluationModule` of a metric: its `compute` takes one row a sample, as `metrics.py` describes.

    Raises:
        ValueError: there is no metric of that name.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; there are {', '.join(METRICS)}")
    return _evaluate().load(str(Path(__file__).parent), name, keep_in_memory=True)


def _evaluate() -> ModuleType:
    """The library, imported without transformers: only its `evaluator` would use it, and it brings torch.

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
