"""A stage program with the shape of a training stage and the cost of none: steps, checkpoints, a stop on request, a payload of many files.

Its payload is a hash chain over all its steps, so a step that is lost, repeated or taken from another run shows in the bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from stages.harness.context import Context, Result, StageStopped
from stages.harness.json_files import write_json
from stages.harness.process import run_stage
from stages.harness.settings import StageSettings, execution, identity

FILES = 40


class ChainSettings(StageSettings):
    """`checkpoint_steps` 0: a stage that keeps no state and starts over."""

    steps: int = identity(40)
    checkpoint_steps: int = execution(5)
    step_s: float = execution(0.02)


def run(context: Context[Any]) -> Result:
    """Hash the input and every step number into one value; write it into many files."""
    settings: ChainSettings = context.settings
    context.stops_gracefully = settings.checkpoint_steps > 0
    saved = context.state / "checkpoint.json"
    step, value = 0, "".join((folder / "file0").read_text() for folder in context.inputs.values())
    if saved.is_file():
        step, value = json.loads(saved.read_text())
        context.note(f"resuming from step {step}")
    while step < settings.steps:
        time.sleep(settings.step_s)
        step += 1
        value = hashlib.sha256(f"{value} {context.seed} {step}".encode()).hexdigest()
        context.progress(step, settings.steps, "chain")
        if settings.checkpoint_steps and (step % settings.checkpoint_steps == 0 or context.stop_requested):
            write_json(saved, [step, value])
        if context.stop_requested:
            raise StageStopped
    for index in range(FILES):
        (context.output / f"file{index}").write_text(value * (1 + 1000 * (index > 0)))
    return Result({"steps": step})


if __name__ == "__main__":
    run_stage(ChainSettings, run)
