"""Two processes under torchrun train as one does, also where the rows do not share out evenly."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import open_stage, run_stage_program, tiny_demonstrations, write_jsonl, write_spec

# SGD, because Adam divides by the root of tiny second moments and so amplifies rounding.
BRIEF = {"batch_size": 8, "max_length": 128, "max_steps": 2, "learning_rate": 0.1, "trainer": {"optim": "sgd"}}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TRAINS = """
import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from stages.harness.process import leave
from stages.sft.settings import SftSettings
from tests.stages.sft.test_trainer import train, weights
from tests.tiny import open_stage

for spec in sys.argv[1:]:
    trainer = train(open_stage(SftSettings, Path(spec)))
    if trainer.accelerator.is_main_process:
        save_file(weights(trainer), Path(spec).with_name("two.safetensors"))
        Path(spec).with_name("two.json").write_text(json.dumps(trainer.state.log_history))
leave(0)  # as a stage does: at the interpreter's end gloo now and then aborts a process whose work is done
"""


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

    settings = {**BRIEF, "method": method, "packing": method["name"] == "iw_sft"}
    one = run_stage_program(tmp_path / "one", "sft", settings, sft_inputs)
    assert one.code == 0, one.log
    spec = write_spec(tmp_path / "two", "sft", settings, sft_inputs, threads=1)
    command = [*TORCHRUN, "-m", "stages.sft", str(spec)]
    two = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert two.returncode == 0, two.stderr
    start = load_file(sft_inputs["model"] / "model" / "model.safetensors")
    split = load_file(tmp_path / "two" / "output" / "model" / "model.safetensors")
    for name, tensor in load_file(one.output / "model" / "model.safetensors").items():
        assert (tensor - split[name]).norm() <= 1e-4 * (tensor - start[name]).norm(), name
    lines = (tmp_path / "two" / "output" / "record" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2, "only the first process reports"


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "batch", "micro"), [(9, 4, None), (21, 8, 2)])
def test_two_processes_give_the_weights_of_one_whatever_the_number_of_rows(
    sft_inputs: dict[str, Path], tmp_path: Path, rows: int, batch: int, micro: int | None
) -> None:
    """Every method, over two epochs whose last batch is short: of 9 rows by four, the second process has none of it.
    Of 21 by eight, which have weights, each process deals its own four to micro-batches of two."""
    from safetensors.torch import load_file

    from stages.sft.settings import SftSettings
    from tests.stages.sft.test_trainer import METHODS, train, weights

    demonstrations = tiny_demonstrations(rows)
    for number, row in enumerate(demonstrations if micro else []):
        row["weight"] = 0.5 * (number % 4)
    write_jsonl(tmp_path / "data" / "sft.jsonl", demonstrations)
    inputs = {**sft_inputs, "data": tmp_path / "data"}
    settings = {**BRIEF, "batch_size": batch, "max_steps": None, "epochs": 2.0}
    folders = {name: tmp_path / name for name in METHODS}
    for name, folder in folders.items():
        write_spec(folder, "sft", {**settings, "method": METHODS[name], "micro_batch_size": micro}, inputs)
    program = tmp_path / "trains.py"
    program.write_text(TRAINS, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    command = [*TORCHRUN, str(program), *(str(folder / "SPEC.json") for folder in folders.values())]
    two = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert two.returncode == 0, two.stderr
    start = load_file(sft_inputs["model"] / "model" / "model.safetensors")
    far = {}
    for name, folder in folders.items():
        whole = write_spec(folder / "one", "sft", {**settings, "method": METHODS[name]}, inputs)
        trainer = train(open_stage(SftSettings, whole))
        one, split = weights(trainer), load_file(folder / "two.safetensors")
        for curve in ("entropy", "mean_token_accuracy"):
            history = trainer.state.log_history, json.loads((folder / "two.json").read_text(encoding="utf-8"))
            alone, shared = ([entry[curve] for entry in entries if curve in entry] for entries in history)
            assert shared == pytest.approx(alone, rel=1e-3), (name, curve)
        apart, moved = (
            sum(float((one[tensor] - other[tensor]).square().sum()) for tensor in start) for other in (split, start)
        )
        far[name] = math.sqrt(apart / moved)
    measures = {name for name in far if name.startswith("vcore")}  # differences of losses, whose rounding they divide
    assert max(far[name] for name in measures) < 3e-4, far
    assert max(far[name] for name in far.keys() - measures) < 1e-5, far


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
    command = [*TORCHRUN, str(program), str(spec)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "output" / "record" / "result.json").exists()
