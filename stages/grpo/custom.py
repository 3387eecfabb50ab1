"""A reward function out of a user's own file, held to what a reward must be: one finite number for each completion."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.records import Problem
from stages.grpo.settings import CustomReward
from stages.runtime import StageError

RewardFunction = Callable[[list[Problem], list[str], list[str]], list[float]]
_FIX = "Check `grpo.rewards.custom` (file, function, options); docs/rl.md has a complete example."


def load_reward(settings: CustomReward) -> RewardFunction:
    """Import `settings.file` and take its function.

    The function is called with the problems, the completions' texts and their finish reasons (`stop` or `length`), three lists of equal
    length, and with `settings.options` as keyword arguments; it returns one number for each.

    Raises:
        StageError: the file cannot be imported, or has no such function. The function returned raises it when the user's function
            raises, returns another number of rewards, or one that is not a finite number.
    """
    path = Path(settings.file).expanduser()
    spec = importlib.util.spec_from_file_location("custom_reward", path)
    if spec is None or spec.loader is None:
        raise StageError(f"{path}: not a Python file", _FIX)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, settings.function)
    except Exception as error:  # whatever the user's code raises, said in one line
        raise StageError(f"{path}: {type(error).__name__}: {error}", _FIX) from error
    where = f"reward {settings.function} of {path}"

    def checked(problems: list[Problem], completions: list[str], finish_reasons: list[str]) -> list[float]:
        try:
            found: Any = function(problems, completions, finish_reasons, **settings.options)
        except Exception as error:
            raise StageError(f"{where} raised {type(error).__name__}: {error}", _FIX) from error
        return _checked(found, len(completions), where)

    return checked


def _checked(found: Any, expected: int, where: str) -> list[float]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise StageError(f"{where} returned {type(found).__name__}, not a list of numbers", _FIX)
    if len(found) != expected:
        raise StageError(f"{where} returned {len(found)} rewards for {expected} completions", _FIX)
    for place, value in enumerate(found):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise StageError(f"{where} returned {value!r} for completion {place}: not a finite number", _FIX)
    return [float(value) for value in found]
