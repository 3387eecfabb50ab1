"""Seconds of a part of a stage, and how busy other programs kept the machine meanwhile."""

import time
from typing import Any, Self

import psutil


class Stopwatch:
    """Measures what runs inside its `with`, in a process of so many threads.

    Attributes:
        seconds: wall time.
        others: share of the machine's cores that other processes kept busy, between 0 and 1.
    """

    seconds = others = 0.0

    def __init__(self, threads: int) -> None:
        self._threads, self._cores = threads, psutil.cpu_count() or 1

    def __enter__(self) -> Self:
        self._began = time.monotonic(), time.process_time(), psutil.cpu_times()
        return self

    def __exit__(self, *exception: object) -> None:
        wall, own, before = self._began
        self.seconds, spent, after = time.monotonic() - wall, time.process_time() - own, psutil.cpu_times()
        total = sum(after) - sum(before)
        idle = (_idle(after) - _idle(before)) / total if total else 1.0
        self.others = min(0.99, max(0.0, 1 - idle - spent / (self.seconds * self._cores)))

    def each(self, count: float = 1.0) -> list[float]:
        """Seconds for each of `count` things: as busy as the machine was, and about what they take on a quiet one."""
        got = min(1.0, self._cores * (1 - self.others) / self._threads)
        return [self.seconds / count, self.seconds * got / count]


def _idle(times: Any) -> float:
    return float(times.idle + times.iowait)
