"""What a long sampling says of itself while it runs."""

from __future__ import annotations

import random
import time
from multiprocessing import Pipe
from threading import Event, Thread
from typing import Any

import pytest

from evaluation.engines import EngineOptions, InFlight, Sampled, SamplingRequest, replica
from evaluation.harness import pace
from evaluation.harness.replicas import ReplicatedEngine


class Flying:
    """An engine of which only what is in flight counts."""

    now = InFlight(0, 0)

    def in_flight(self) -> InFlight:
        return self.now


def watching(monkeypatch: pytest.MonkeyPatch, limits: list[int]) -> tuple[list[float], Any, pace.Pace, list[Any]]:
    """A clock at 0, an engine, what watches it, and what that has shown: (finished, figures) of each report."""
    clock, engine, shown = [0.0], Flying(), list[Any]()
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    return clock, engine, pace.Pace(lambda *report: shown.append(report), engine, limits), shown


def test_figures_count_finished_and_unfinished_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, engine, watched, shown = watching(monkeypatch, [100] * 4)
    watched.report()
    assert shown.pop() == (0, {"tokens": 0, "running": 0, "waiting": 4, "tokens_per_s": 0})
    clock[0], engine.now = 10.0, InFlight(2, 40)
    watched.report()  # nothing has ended: 400 - 40 tokens at 4 a second
    assert shown.pop() == (0, {"tokens": 40, "running": 2, "waiting": 2, "tokens_per_s": 4, "left": "up to 2 min"})
    watched.add(0, Sampled("", 100, "length"))
    clock[0], engine.now = 20.0, InFlight(2, 60)
    watched.report()
    assert shown.pop() == (1, {"tokens": 160, "running": 2, "waiting": 1, "tokens_per_s": 8, "left": "up to 30 s"})
    watched.add(1, Sampled("", 10, "stop"))
    watched.add(2, Sampled("", 10, "stop"))
    watched.add(3, Sampled("", 10, "stop"))
    clock[0], engine.now = 30.0, InFlight(0, 0)
    watched.report()
    assert shown.pop() == (4, {"tokens": 130, "running": 0, "waiting": 0, "tokens_per_s": 4})
    assert watched.tokens == 130


def test_while_prompts_are_read_no_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, engine, watched, shown = watching(monkeypatch, [256] * 100)
    for seconds, running, tokens in ((30, 50, 50), (60, 100, 150), (70, 100, 1150), (80, 100, 2150)):
        clock[0], engine.now = seconds, InFlight(running, tokens)
        watched.report()
    assert [figures["tokens_per_s"] for _, figures in shown] == [2, 3, 100, 100]
    assert [figures.get("left") for _, figures in shown] == [None, None, "up to 4 min", "up to 4 min"]


def test_short_answers_have_a_time_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, engine, watched, shown = watching(monkeypatch, [1024] * 100)
    watched.report()
    for index in range(50):
        watched.add(index, Sampled("B", 2, "stop"))
    clock[0], engine.now = 10.0, InFlight(10, 10)
    watched.report()
    assert (shown[-1][1]["tokens_per_s"], shown[-1][1]["left"]) == (11, "10 s")


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, engine, watched, shown = watching(monkeypatch, [10**6])
    tokens = 0
    for rate in (100, 10):
        for _ in range(60):
            clock[0] += pace.EVERY_S
            tokens += round(rate * pace.EVERY_S)
            engine.now = InFlight(1, tokens)
            watched.report()
    assert shown[58][1]["tokens_per_s"] == 100
    assert shown[-1][1]["tokens_per_s"] == 10


def test_while_nothing_has_ended_by_itself_all_the_room_counts() -> None:
    assert pace.expected_tokens(left=3, room=300, tokens=50, ended=0) == 300
    assert pace.expected_tokens(left=0, room=0, tokens=50, ended=5) == 0


@pytest.mark.parametrize(("mean", "limit"), [(50, 10_000), (200, 300), (1000, 100)])
@pytest.mark.parametrize("at", [0.3, 0.7])
def test_what_is_left_is_estimated_without_the_bias_of_short_ones_ending_first(
    mean: int, limit: int, at: float
) -> None:
    """All completions begin at once and end with a constant probability at each token, or at their limit."""
    draw = random.Random(0)
    lengths = [min(limit, 1 + int(draw.expovariate(1 / mean))) for _ in range(4000)]
    step = max(1, int(at * min(mean, limit)))
    finished, flying = [n for n in lengths if n <= step], [n for n in lengths if n > step]
    left = pace.expected_tokens(
        len(flying), len(flying) * (limit - step), sum(finished) + len(flying) * step, len(finished)
    )
    assert left == pytest.approx(sum(flying) - len(flying) * step, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert pace.in_words(seconds) == words


def test_replicas_tell_what_they_have_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Event()

    class Slow(Flying):
        version, max_model_len, now = "1", 64, InFlight(2, 30)

        def generate(self, requests: Any, on_done: Any) -> None:
            assert told.wait(30)
            on_done(0, Sampled("a", 1, "stop"))

    monkeypatch.setattr(replica, "IN_FLIGHT_EVERY_S", 0.01)
    monkeypatch.setattr(replica, "open_engine", lambda name, model, options: Slow())
    engine: Any = object.__new__(ReplicatedEngine)
    engine.max_model_len, engine._replicas, engine._in_flight = 64, [], {}
    threads: list[Thread] = []
    done: list[Sampled] = []
    for _ in range(2):
        ours, theirs = Pipe()
        threads.append(Thread(target=replica.serve, args=(theirs,)))
        threads[-1].start()
        ours.send(("any", "any", EngineOptions("cpu", "float32")))
        assert ours.recv() == ("1", 64)
        engine._replicas.append((None, ours))
    sampling = Thread(target=lambda: done.extend(engine.generate([SamplingRequest((1,), 8)] * 2)))
    sampling.start()
    deadline = time.monotonic() + 30
    while engine.in_flight() != InFlight(4, 60):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    told.set()
    sampling.join(30)
    assert done == [Sampled("a", 1, "stop")] * 2
    assert engine.in_flight() == InFlight(0, 0)
    for (_, ours), thread in zip(engine._replicas, threads, strict=True):
        ours.close()
        thread.join(30)
        assert not thread.is_alive()
