"""A stage program with the shape of a training stage and the cost of none: steps, checkpoints, a stop on request, a
payload of many files.

Its payload is a hash chain over all its steps, so a step that is lost, repeated or taken from another run shows in the
bytes.
"""

from __future__ import annotations

import hashlib
import json
import time

from stages.harness.context import Context, Result, StageStopped
from stages.harness.json_files import write_json
from tests.kill.chain.settings import ChainSettings

FILES = 40


def run(ctx: Context[ChainSettings]) -> Result:
    """Hash the input and every step number into one value; write it into many files."""
    settings = ctx.settings
    ctx.stops_gracefully = settings.checkpoint_steps > 0
    saved = ctx.state / "checkpoint.json"
    step, value = 0, "".join((folder / "file0").read_text() for folder in ctx.inputs.values())
    if saved.is_file():
        step, value = json.loads(saved.read_text())
        ctx.note(f"resuming from step {step}")
    while step < settings.steps:
        time.sleep(settings.step_s)
        step += 1
        value = hashlib.sha256(f"{value} {ctx.seed} {step}".encode()).hexdigest()
        ctx.progress(step, settings.steps, "chain")
        if settings.checkpoint_steps and (step % settings.checkpoint_steps == 0 or ctx.stop_requested):
            write_json(saved, [step, value])
        if ctx.stop_requested:
            raise StageStopped
    for index in range(FILES):
        (ctx.output / f"file{index}").write_text(value * (1 + 1000 * (index > 0)))
    return Result({"steps": step})
