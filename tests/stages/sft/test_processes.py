"""Two processes under torchrun train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import run_stage_program, write_spec

# SGD, because Adam divides by the root of tiny second moments and so amplifies rounding.
BRIEF = {"batch_size": 8, "max_length": 128, "max_steps": 2, "learning_rate": 0.1, "trainer": {"optim": "sgd"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [{"name": "vcore", "probe_fraction": 0.5, "direction": "ema"}, {"name": "iw_sft"}],
    ids=lambda method: method["name"],
)
def test_two_processes_give_the_update_of_one(
    sft_inputs: dict[str, Path], tmp_path: Path, method: dict[str, Any]
) -> None:
    from safetensors.torch import load_file

    settings = {**BRIEF, "method": method}
    one = run_stage_program(tmp_path / "one", "sft", settings, sft_inputs)
    assert one.code == 0, one.log
    spec = write_spec(tmp_path / "two", "sft", settings, sft_inputs, threads=1)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "stages.sft",
        str(spec),
    ]
    two = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert two.returncode == 0, two.stderr
    start = load_file(sft_inputs["model"] / "model" / "model.safetensors")
    split = load_file(tmp_path / "two" / "output" / "model" / "model.safetensors")
    for name, tensor in load_file(one.output / "model" / "model.safetensors").items():
        assert (tensor - split[name]).norm() <= 1e-4 * (tensor - start[name]).norm(), name
    lines = (tmp_path / "two" / "output" / "record" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2, "only the first process reports"


@pytest.mark.slow
def test_a_batch_that_does_not_split_is_refused(sft_inputs: dict[str, Path], tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "sft", {**BRIEF, "batch_size": 9}, sft_inputs, threads=1)
    answer = subprocess.run(
        [sys.executable, "-m", "stages.sft", str(spec)],
        capture_output=True,
        text=True,
        env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"},
    )
    assert answer.returncode == 1
    assert "batch_size 9 does not split into 2 processes" in answer.stderr


LEAVES = """
import torch
import torch.distributed as dist

from stages.harness.context import Context, Result
from stages.harness.process import run_stage
from stages.harness.settings import StageSettings


def run(ctx: Context[StageSettings]) -> Result:
    dist.init_process_group("gloo")
    for _ in range(400):
        dist.all_gather([torch.empty(20000) for _ in range(2)], torch.ones(20000), async_op=True)
    return Result({"done": True})


run_stage(StageSettings, run)
"""


@pytest.mark.slow
def test_a_process_ends_well_while_gloo_still_lets_go_of_tensors(tmp_path: Path) -> None:
    """Ended as Python ends by itself, four in five such programs are aborted."""
    program = tmp_path / "leaves.py"
    program.write_text(LEAVES, encoding="utf-8")
    spec = write_spec(tmp_path, "leaves", {}, {})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(program),
        str(spec),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "output" / "record" / "result.json").exists()
