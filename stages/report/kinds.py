"""What a report has to know of the kinds of stages, beside what their manifests say."""

import importlib.util
from functools import cache

ORDER = ("data", "base", "sft", "difficulty", "grpo", "generate", "score")
"""Kinds of stages in the order of the pipeline."""
TRAINING = {"sft": "SFT", "grpo": "RL"}
"""Kinds that train on the user's data -> what the reports call that."""


def position(kind: str) -> int:
    """Where a kind of stage stands in the pipeline; one that `ORDER` does not know comes last."""
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


@cache
def declares(kind: str, field: str) -> bool:
    """Whether a kind of stage declares `uses_gpu` or `makes_checkpoint` in its `stage.py`."""
    if importlib.util.find_spec(f"stages.{kind}") is None:
        return False
    return bool(getattr(importlib.import_module(f"stages.{kind}.stage").STAGE, field))
