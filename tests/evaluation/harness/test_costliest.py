"""The order in which tasks of known and unknown cost are begun."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from evaluation.harness.costliest import CostliestFirst


def test_the_costliest_begin_first_and_what_a_running_task_puts_is_weighed_too() -> None:
    begun: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        queue, first, futures = CostliestFirst(pool), threading.Event(), dict[str, Future[Any]]()

        def put(name: str, cost_s: float | None) -> None:
            futures[name] = Future()
            queue.put(lambda: begun.append(name), cost_s, futures[name])

        def reference() -> None:
            first.wait(10)
            put("found out later", 5.0)

        futures["reference"] = Future()
        queue.put(reference, None, futures["reference"])
        for name, cost_s in {"short": 0.01, "unknown": None, "long": 8.0, "equal, later": 0.01}.items():
            put(name, cost_s)
        first.set()
        for future in list(futures.values()):
            future.result(10)
        futures["found out later"].result(10)
    assert begun == ["long", "found out later", "unknown", "short", "equal, later"]


def test_an_error_is_told_and_the_thread_goes_on() -> None:
    with ThreadPoolExecutor(1) as pool:
        queue, broken, whole = CostliestFirst(pool), Future[Any](), Future[Any]()
        queue.put(lambda: 1 // 0, 2.0, broken)
        queue.put(lambda: 7, 1.0, whole)
        with pytest.raises(ZeroDivisionError):
            broken.result(10)
        assert whole.result(10) == 7
