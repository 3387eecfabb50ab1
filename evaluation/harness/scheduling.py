"""Scheduling of tasks on a pool of threads, the longest first, so that no core is left waiting for a long last one."""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

UNKNOWN_S = 1.0
"""Assumed length of a task of unknown length: more than most, so that it starts early, and less than a long one."""


class LongestFirst:
    """A queue before a pool: a free thread takes the task that is expected to be the longest, of equal ones the oldest.

    A task may put further tasks while it runs. The order decides when a task runs, never what it returns.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Future[Any], Callable[[], Any]]] = []

    def put(self, work: Callable[[], Any], expected_s: float | None, future: Future[Any]) -> None:
        """Schedule `work`; `future` gets its result or its error, and is cancelled where the pool is closed before.

        Args:
            expected_s: expected length in seconds; None: unknown.
        """
        expected_s = UNKNOWN_S if expected_s is None else expected_s
        with self._lock:
            heapq.heappush(self._waiting, (-expected_s, next(self._numbers), future, work))
        self._pool.submit(self._run_next).add_done_callback(self._cancel_one)

    def _run_next(self) -> None:
        future, work = self._pop()
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the future has to end
            future.set_exception(error)

    def _cancel_one(self, runner: Future[None]) -> None:
        """Cancel a waiting task where the pool was closed before a thread could take it."""
        if runner.cancelled():
            self._pop()[0].cancel()

    def _pop(self) -> tuple[Future[Any], Callable[[], Any]]:
        with self._lock:
            _, _, future, work = heapq.heappop(self._waiting)
        return future, work
