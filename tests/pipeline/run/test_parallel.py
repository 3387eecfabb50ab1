"""Stages beside each other: the order they begin in, failures, and what an interruption does."""

import _thread
import signal
import threading
import time

import pytest

from pipeline.plan.graph import Input, Stage
from pipeline.run.parallel import run_stages
from stages.harness.settings import StageSettings

STAGES = [
    Stage(name, "none", StageSettings(), {source: Input(source) for source in sources})
    for name, sources in {
        "data": (),
        "base": (),
        "generate.base": ("data", "base"),
        "score.base": ("generate.base",),
        "sft": ("data", "base"),
        "report": ("score.base", "sft"),
    }.items()
]


class Recorder:
    """Notes when stages begin and end, and how many ran at the most."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.events: list[str] = []
        self.running = self.most = 0

    def __call__(self, stage: Stage) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.events.append(f"+{stage.name}")
        time.sleep(self.seconds)
        with self.lock:
            self.running -= 1
            self.events.append(f"-{stage.name}")


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_a_stage_begins_when_what_it_takes_from_has_ended(at_once: int) -> None:
    recorder = Recorder()
    run_stages(STAGES, at_once, recorder, threading.Event())
    assert recorder.most == min(at_once, 2), "this graph never has more than two stages that could run"
    for stage in STAGES:
        begun = recorder.events.index(f"+{stage.name}")
        assert all(recorder.events.index(f"-{source}") < begun for source in stage.inputs)
    if at_once > 1:  # not one after the other
        assert recorder.events.index("+sft") < recorder.events.index("-generate.base")


def test_what_is_there_already_is_not_waited_for() -> None:
    recorder = Recorder()
    run_stages(STAGES[4:], 2, recorder, threading.Event())
    assert recorder.events == ["+sft", "-sft", "+report", "-report"]


def test_after_a_failure_nothing_begins_and_what_runs_ends() -> None:
    recorder = Recorder(0.3)

    def run(stage: Stage) -> None:
        if stage.name == "generate.base":
            raise RuntimeError("no memory")
        recorder(stage)

    with pytest.raises(RuntimeError, match="no memory"):
        run_stages(STAGES, 2, run, threading.Event())
    assert recorder.events[-2:] == ["+sft", "-sft"]


def test_an_interruption_reaches_the_threads_before_it_is_raised() -> None:
    stopping, stopped = threading.Event(), []

    def run(stage: Stage) -> None:
        assert stopping.wait(20)
        stopped.append(stage.name)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_stages(STAGES, 2, run, stopping)
    assert sorted(stopped) == ["base", "data"]
