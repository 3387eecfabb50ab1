"""How far a long sampling has come, and how much longer it will take: for whoever watches, never for a result."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from evaluation.engines.base import Engine, Sampled

EVERY_S = 2.0
"""Seconds between two reports."""
RECENT = 30
"""Reports that the tokens per second are measured over, a minute: with fewer completions in flight it falls."""
FEW = 8
"""Tokens a completion, or a quarter of its limit, before which the time left is not told: while prompts are read,
tokens come a hundred times slower than after it."""
Show = Callable[[int, dict[str, int | str]], None]
"""Takes the number of finished completions and the figures of a report."""


def expected_tokens(left: int, room: int, tokens: int, ended: int) -> float:
    """Tokens that completions in flight or waiting may still take.

    As if each ended with the same probability at every token: `ended` of `tokens` so far, those of unfinished ones
    included, or else where its limit is. The mean of the finished ones alone would be too short: short ones end first.
    While none has ended by itself, that is all the room there is.

    Args:
        left: completions that are not finished.
        room: tokens up to their limits, all together.
        tokens: drawn so far, in finished and unfinished completions.
        ended: completions that ended before their limit.
    """
    if not left or not ended:
        return float(room)
    mean = tokens / ended
    return -left * mean * math.expm1(-room / left / mean)


class Pace:
    """Reports while it is entered, and when it is left: tokens, running and waiting completions, tokens per second and
    time left. It reports from a thread of its own, since the engine's first step alone may take minutes."""

    def __init__(self, show: Show, engine: Engine, limits: list[int]) -> None:
        """`limits` are the most tokens of each completion that is asked for."""
        self._show, self._engine, self._limits = show, engine, limits
        self._room = sum(limits)
        self._few = min(FEW, self._room / max(len(limits), 1) / 4)
        self.tokens = self._done = self._ended = 0
        self._recent = deque([(time.monotonic(), 0)], maxlen=RECENT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report_on, daemon=True)

    def add(self, index: int, sampled: Sampled) -> None:
        """Count a finished completion."""
        self._done += 1
        self.tokens += sampled.tokens
        self._ended += sampled.finish_reason == "stop"
        self._room -= self._limits[index]

    def report(self) -> None:
        """Show how far it is."""
        flying = self._engine.in_flight()
        left, now = len(self._limits) - self._done, time.monotonic()
        tokens = self.tokens + flying.tokens
        begun, before = self._recent[0]
        self._recent.append((now, tokens))
        rate = (tokens - before) / max(now - begun, 1e-9)
        figures: dict[str, int | str] = {"tokens": tokens, "running": flying.running, "waiting": left - flying.running}
        figures["tokens_per_s"] = round(rate)
        if not self._done and tokens < self._few * flying.running:
            self._recent.clear()
            self._recent.append((now, tokens))
        elif left and rate > 0:
            more = expected_tokens(left, max(self._room - flying.tokens, left), tokens, self._ended)
            figures["left"] = ("" if self._ended else "up to ") + in_words(more / rate)
        self._show(self._done, figures)

    def _report_on(self) -> None:
        while not self._over.wait(EVERY_S):
            self.report()

    def __enter__(self) -> Self:
        self.report()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self.report()


def in_words(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
