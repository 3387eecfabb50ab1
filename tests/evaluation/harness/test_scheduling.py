"""The order in which tasks of known and unknown length start."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from evaluation.harness.scheduling import LongestFirst


def test_the_longest_start_first_and_so_does_what_a_running_task_puts() -> None:
    started: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        queue, first, futures = LongestFirst(pool), threading.Event(), dict[str, Future[Any]]()

        def put(name: str, expected_s: float | None) -> None:
            futures[name] = Future()
            queue.put(lambda: started.append(name), expected_s, futures[name])

        def reference() -> None:
            first.wait(10)
            put("put by the first", 5.0)

        futures["reference"] = Future()
        queue.put(reference, None, futures["reference"])
        for name, expected_s in {"short": 0.01, "unknown": None, "long": 8.0, "equal, later": 0.01}.items():
            put(name, expected_s)
        first.set()
        for future in list(futures.values()):
            future.result(10)
        futures["put by the first"].result(10)
    assert started == ["long", "put by the first", "unknown", "short", "equal, later"]


def test_an_error_is_told_and_the_thread_goes_on() -> None:
    with ThreadPoolExecutor(1) as pool:
        queue, broken, whole = LongestFirst(pool), Future[Any](), Future[Any]()
        queue.put(lambda: 1 // 0, 2.0, broken)
        queue.put(lambda: 7, 1.0, whole)
        with pytest.raises(ZeroDivisionError):
            broken.result(10)
        assert whole.result(10) == 7
