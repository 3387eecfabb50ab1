"""A stage program for the launcher's tests: does what `details.behaviour` says, with the real runtime."""

import os
import signal
import subprocess
import sys
import time

from stages.harness.context import Context, Result, StageError, StageStopped
from stages.harness.process import run_stage
from stages.harness.settings import StageSettings, identity


class FakeSettings(StageSettings):
    steps: int = identity(3)


def run(context: Context[FakeSettings]) -> Result:
    behaviour = context.details["behaviour"]
    print(f"behaviour {behaviour}, {context.machine.threads} threads, GPUs {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    if behaviour == "succeed":
        for step in range(context.settings.steps):
            context.progress(step + 1, context.settings.steps, "work", loss=1.0 / (step + 1))
        (context.output / "payload").write_text("made")
        return Result({"steps": context.settings.steps}, {"headline": "made"})
    if behaviour == "resume":  # counts in its state; stops when asked; ends at 5
        most = max(5, context.settings.steps)
        context.stops_gracefully = True
        counter = context.state / "count"
        count = int(counter.read_text()) if counter.exists() else 0
        context.note(f"starts at {count}")
        (context.spec_path.parent / f"listens.{os.environ.get('RANK', '0')}").touch()
        while count < most:
            count += 1
            counter.write_text(str(count))
            context.progress(count, most, "work")
            if context.stop_requested:
                raise StageStopped
            time.sleep(0.3)
        (context.output / "payload").write_text("5")
        return Result({"count": count})
    if behaviour == "orphan":  # leaves a process behind
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        (context.output / "pid").write_text(str(child.pid))
        return Result({"ok": True})
    if behaviour == "no_proof":
        return Result({})
    if behaviour == "stage_error":
        raise StageError("the data are empty", "Add some rows.")
    if behaviour == "no_memory":
        try:
            raise MemoryError
        except MemoryError as error:
            raise StageError("too large", "Make it smaller.") from error
    if behaviour == "no_network":
        import httpx

        raise httpx.ConnectError("the hub does not answer")
    if (
        behaviour == "second_rank"
    ):  # under torchrun: one process fails, and the others follow, stopped or for want of it
        if os.environ["RANK"] == "1":
            if context.settings.steps == 5:
                time.sleep(1)
                os.kill(os.getpid(), 9)
            raise MemoryError("rank 1 has no memory")
        try:
            time.sleep(60)
        except StageStopped:
            if context.settings.steps != 4:
                raise
            raise RuntimeError("connection closed by peer") from None
    if behaviour == "deaf":  # as in a collective of C++, where no handler of Python's runs
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (context.output / f"pid{os.environ.get('RANK', '0')}").write_text(str(os.getpid()))
        time.sleep(120)
    if behaviour == "ranks":  # under torchrun: every process says who it is, the first one reports
        (context.output / f"rank{os.environ['RANK']}").write_text(os.environ["WORLD_SIZE"])
        return Result({"ranks": int(os.environ["WORLD_SIZE"])})
    if behaviour == "bug":
        raise RuntimeError("unforeseen")
    if behaviour == "die":
        os.kill(os.getpid(), 9)
    if behaviour == "half_result":
        (context.record / "result.json").write_text('{"proof": {')
        os._exit(0)
    if behaviour == "exit0":
        os._exit(0)
    if behaviour == "hang":
        while True:
            time.sleep(1)
    raise AssertionError(behaviour)


if __name__ == "__main__":
    run_stage(FakeSettings, run)
