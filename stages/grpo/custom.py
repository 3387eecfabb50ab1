"""A reward function out of a user's own file, held to what a reward must be: one finite number for each completion."""

import functools
import math
import numbers
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from evaluation.records import Problem
from stages.grpo.settings import CustomReward
from stages.harness.context import StageError
from stages.training.custom_code import NO_DIGESTS, load_custom

RewardFunction = Callable[[list[Problem], list[str], list[str]], list[float]]
"""Problems, completions and finish reasons (`stop` or `length`), equally many -> a reward for each."""
LARGEST = 1e15
"""Of a reward. Advantages are float32, which does not hold the squares of much larger ones."""
FIX = "Check `grpo.rewards.custom` (file, function, options); docs/rl.md has a complete example."


def load_reward(settings: CustomReward, digests: Mapping[str, str] = NO_DIGESTS) -> RewardFunction:
    """Import `settings.file` and take its function, to be called with problems, texts and finish reasons.

    Args:
        digests: file -> the sha256 that it has to have; see `load_custom`.

    Raises:
        StageError: the file cannot be imported, or has no such function. The function returned raises it when the
            user's function raises, takes longer than `settings.timeout_s`, returns another number of rewards, or one
            that is not a finite number.
    """
    path = Path(settings.file).expanduser()
    load = functools.partial(
        load_custom, settings.file, lambda module: getattr(module, settings.function), FIX, digests
    )
    function = _in_time(load, settings.timeout_s, f"{path}: the import")
    where = f"reward {settings.function} of {path}"
    if not callable(function):
        raise StageError(f"{where} is no function but {function!r}", FIX)

    def checked(problems: list[Problem], completions: list[str], finish_reasons: list[str]) -> list[float]:
        expected = len(completions)  # it may change the lists it is given
        call = functools.partial(function, problems, completions, finish_reasons, **settings.options)
        return _checked(_in_time(call, settings.timeout_s, where), expected, where)

    return checked


def _in_time(call: Callable[[], Any], seconds: float, what: str) -> Any:
    """The result of `call`, or StageError where it raises or does not end within `seconds`.

    It runs in a thread that nobody waits for at the end of the process: a thread cannot be stopped, and this way what
    hangs in it, be it in C, does not keep the stage from ending.
    """
    outcome: Future[Any] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([outcome], seconds).done:
        fix = "Make it faster, or raise `timeout_s` of this reward."
        raise StageError(f"{what} did not end within {seconds:g} s", fix)
    error = outcome.exception()
    if error is None or isinstance(error, StageError):
        return outcome.result()
    raise StageError(f"{what} raised {type(error).__name__}: {error}", FIX) from error


def _checked(rewards: Any, expected: int, where: str) -> list[float]:
    if not isinstance(rewards, Sequence) or isinstance(rewards, str):
        raise StageError(f"{where} returned {type(rewards).__name__}, not a list of numbers", FIX)
    if len(rewards) != expected:
        raise StageError(f"{where} returned {len(rewards)} rewards for {expected} completions", FIX)
    for index, reward in enumerate(rewards):
        try:
            is_number = isinstance(reward, numbers.Real) and math.isfinite(reward)  # numpy's scalars are Real, too
        except OverflowError as error:  # a whole number that no float holds, and that may be too long to be shown
            raise StageError(
                f"{where} returned a number for completion {index} that is no float: {error}", FIX
            ) from error
        if not is_number:
            raise StageError(f"{where} returned {reward!r} for completion {index}: not a finite number", FIX)
        if abs(reward) > LARGEST:
            excess = f"{where} returned {float(reward):g} for completion {index}: larger than advantages can be"
            raise StageError(excess, f"Scale it to {LARGEST:g} at most; only differences within a group count.")
    return [float(reward) for reward in rewards]
