"""Tasks on a pool of threads, the costliest first: with the long ones begun early, no core waits for the last of them at the end."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

UNKNOWN_S = 1.0
"""What a task of unknown cost is taken to cost: more than most, so that it begins early, and less than one that is known to be long."""


class CostliestFirst:
    """Tasks wait here until a thread of the pool is free, which then takes the one of the largest cost; of equal ones the oldest.

    A task may put further tasks while it runs.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Future[Any], Callable[[], Any]]] = []

    def put(self, work: Callable[[], Any], cost_s: float | None, future: Future[Any]) -> None:
        """Have `work` done some time, and its result or error told by `future`, which is cancelled with the pool.

        Args:
            cost_s: expected seconds; None: unknown.
        """
        with self._lock:
            heapq.heappush(
                self._waiting, (-(UNKNOWN_S if cost_s is None else cost_s), next(self._numbers), future, work)
            )
        self._pool.submit(self._take_one).add_done_callback(self._cancel_one)

    def _take_one(self) -> None:
        future, work = self._next()
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            future.set_exception(error)

    def _cancel_one(self, taker: Future[None]) -> None:
        """The pool has been closed: one thread fewer will take a task, and whoever waits for that task hears of it."""
        if taker.cancelled():
            self._next()[0].cancel()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]]:
        with self._lock:
            _, _, future, work = heapq.heappop(self._waiting)
        return future, work
