"""Running stages beside each other: each begins as soon as what it takes from is there."""

import contextvars
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipeline.plan.graph import Stage

POLL_SECONDS = 0.2


def run_stages(
    stages: Iterable[Stage], at_once: int, run: Callable[[Stage], object], stopping: threading.Event
) -> None:
    """Call `run` with every stage, in running order, up to `at_once` at a time.

    With one at a time everything happens in the calling thread. With more, a stage runs in a thread of its own, and
    first come those that others wait for longest: running order. After a failure no further stage begins; those that
    run are let end, since what they make is kept, and the first failure is raised. When the calling thread is
    interrupted, `stopping` is set, which `run` has to heed, and what was raised is raised on when all have ended.
    """
    if at_once == 1:
        for stage in stages:
            run(stage)
        return
    left = list(stages)
    here = {stage.name for stage in left}  # of a run of a part, the others are there already
    done: set[str] = set()
    running: dict[Future[object], Stage] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(at_once, thread_name_prefix="stage") as pool:
        try:
            while running or (left and failure is None):
                for stage in ready(left, here - done) if failure is None else []:
                    if len(running) < at_once:
                        left.remove(stage)
                        running[pool.submit(contextvars.copy_context().run, run, stage)] = stage
                for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                    stage, error = running.pop(future), future.exception()
                    done |= {stage.name} if error is None else set()
                    failure = failure or error
        except BaseException:
            stopping.set()
            raise
    if failure is not None:
        raise failure


def ready(stages: Iterable[Stage], missing: set[str]) -> list[Stage]:
    """Those of the stages that take from nothing that is missing, and wait for nothing."""
    return [
        stage
        for stage in stages
        if not any(name in missing for name in (*stage.after, *(source.stage for source in stage.inputs.values())))
    ]
