"""Short runs of the GRPO stage as a program, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stages.training.loop import TRAINER_STATE
from tests.tiny import StageRun, stage_environment, write_spec

BRIEF: dict[str, Any] = {
    "steps": 8,
    "prompts_per_step": 4,
    "num_generations": 4,
    "micro_batch_size": 8,
    "max_completion_length": 40,
    "learning_rate": 3e-4,
    "checkpoint_steps": 3,
}
TORCHRUN = ("torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m")


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of the payload, `record/` left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {str(path.relative_to(folder)): path for path in files if "record" not in path.relative_to(folder).parts}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items()}


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "record" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def result(run: StageRun) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run.output / "record" / "result.json").read_text(encoding="utf-8"))
    return values


def stop_after_checkpoint(
    folder: Path, step: int, settings: dict[str, Any], inputs: dict[str, Path], blow: signal.Signals, seed: int = 0
) -> int:
    """Start a run in `folder`, send it `blow` when the checkpoint of `step` is complete; returns its exit code."""
    spec = write_spec(folder, "grpo", settings, inputs, seed=seed)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.grpo", str(spec)],
        env=stage_environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    state = folder / "state" / "checkpoints" / f"checkpoint-{step}" / TRAINER_STATE
    while not (state.exists() and state.read_text().endswith("\n}\n")):  # the last file, and whole
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(blow)
    return process.wait(timeout=60)


def run_two_processes(spec: Path) -> str:
    """Run the stage in two processes to its end; returns what they said."""
    command = [sys.executable, "-m", *TORCHRUN, "stages.grpo", str(spec)]
    process = subprocess.run(command, env=stage_environment(), text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    return process.stderr
