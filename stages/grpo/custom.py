"""A reward function out of a user's own file, held to what a reward must be: one finite number for each completion."""

from __future__ import annotations

import functools
import importlib.util
import math
import numbers
import sys
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from evaluation.records import Problem
from stages.grpo.settings import CustomReward
from stages.harness.context import StageError

RewardFunction = Callable[[list[Problem], list[str], list[str]], list[float]]
_FIX = "Check `grpo.rewards.custom` (file, function, options); docs/rl.md has a complete example."


def load_reward(settings: CustomReward) -> RewardFunction:
    """Import `settings.file` and take its function.

    The function is called with the problems, the completions' texts and their finish reasons (`stop` or `length`), three lists of equal
    length, and with `settings.options` as keyword arguments; it returns one number for each.

    Raises:
        StageError: the file cannot be imported, or has no such function. The function returned raises it when the user's function
            raises, takes longer than `settings.timeout_s`, returns another number of rewards, or one that is not a finite number.
    """
    path = Path(settings.file).expanduser()
    name = f"custom_reward_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StageError(f"{path}: not a Python file", _FIX)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does it: dataclasses look their module up there
    load = functools.partial(spec.loader.exec_module, module)
    try:
        _in_time(load, settings.timeout_s, f"{path}: the import")
        function = getattr(module, settings.function)
    except StageError:
        raise
    except BaseException as error:  # whatever the user's code raises, said in one line
        raise StageError(f"{path}: {type(error).__name__}: {error}", _FIX) from error
    where = f"reward {settings.function} of {path}"
    if not callable(function):
        raise StageError(f"{where} is no function but {function!r}", _FIX)

    def checked(problems: list[Problem], completions: list[str], finish_reasons: list[str]) -> list[float]:
        call = functools.partial(function, problems, completions, finish_reasons, **settings.options)
        try:
            found = _in_time(call, settings.timeout_s, where)
        except StageError:
            raise
        except BaseException as error:
            raise StageError(f"{where} raised {type(error).__name__}: {error}", _FIX) from error
        return _checked(found, len(completions), where)

    return checked


def _in_time(call: Callable[[], Any], seconds: float, what: str) -> Any:
    """The call's result, or what it raised, or StageError after `seconds`.

    It runs in a thread that nobody waits for at the end of the process: a thread cannot be stopped, and this way what hangs in it, be it
    in C, does not keep the stage from ending.
    """
    ended: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            ended.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not ended:
        raise StageError(
            f"{what} did not end within {seconds:g} s", "Make it faster, or raise `timeout_s` of this reward."
        )
    return ended[0]


def _checked(found: Any, expected: int, where: str) -> list[float]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise StageError(f"{where} returned {type(found).__name__}, not a list of numbers", _FIX)
    if len(found) != expected:
        raise StageError(f"{where} returned {len(found)} rewards for {expected} completions", _FIX)
    for place, value in enumerate(found):
        if not isinstance(value, numbers.Real) or not math.isfinite(value):  # numpy's scalars are Real, too
            raise StageError(f"{where} returned {value!r} for completion {place}: not a finite number", _FIX)
    return [float(value) for value in found]
