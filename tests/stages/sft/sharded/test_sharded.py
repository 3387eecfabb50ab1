"""A model that FSDP2 shares out over two processes is measured, trained and continued as a whole one.

accelerate's own wrapping and the Trainer's own checkpoints, on a CPU with gloo: see program.py. All of it runs
in one pair of processes, because importing the libraries takes them longer than what is tested.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stages.sft.settings import SftSettings
from tests.stages.sft.test_trainer import METHODS, train, weights
from tests.tiny import open_stage, write_spec

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("program.py")
BRIEF = {"batch_size": 8, "micro_batch_size": 2, "max_length": 128}
# SGD, because Adam divides by the root of tiny second moments and so amplifies rounding.
STEPS = {**BRIEF, "max_steps": 2, "learning_rate": 0.1, "trainer": {"optim": "sgd"}}
TRAINED: dict[str, dict[str, Any]] = {
    name: {**STEPS, "method": METHODS[name]}
    for name in ("uniform", "dft", "iw_sft", "noise", "vcore", "vcore_ema", "vcore_central_trajectories")
} | {
    "vcore lora": {**STEPS, "method": METHODS["vcore"], "lora": {"rank": 2}},
    "packed": {**STEPS, "method": METHODS["dft"], "packing": True},
    "vcore packed": {**STEPS, "method": METHODS["vcore"], "packing": True},
    # Heavy enough that a divergence that is left out would show.
    "anchored": {**STEPS, "method": {"name": "asft", "kl_weight": 10.0}},
    "anchored lora": {**STEPS, "method": {"name": "asft", "kl": "reverse", "kl_weight": 10.0}, "lora": {"rank": 2}},
}
STAGES: dict[str, dict[str, Any]] = {
    name: {**BRIEF, "max_steps": 3, "checkpoint_steps": 2, "learning_rate": 2e-3, **settings}
    for name, settings in {
        "full": {"method": {"name": "vcore", "direction": "ema", "precondition": True}},
        "lora": {
            "method": {"name": "vcore", "utility": "central_difference"},
            "lora": {"rank": 2},
            "dtype": "bfloat16",
        },
        "anchored": {"method": {"name": "asft", "kl_weight": 10.0}, "dtype": "bfloat16", "packing": True},
    }.items()
}


@pytest.fixture(scope="module")
def ran(sft_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which all runs of the two processes are."""
    root = tmp_path_factory.mktemp("sharded")
    # Of five rows of a probe one process has three, and fills up what the other lacks.
    write_spec(root / "measured", "sft", {**STEPS, "max_steps": 1, "batch_size": 10, "micro_batch_size": 1}, sft_inputs)
    work = ["measure", str(root / "measured")]
    for name, settings in TRAINED.items():
        write_spec(root / name, "sft", settings, sft_inputs)
        work += ["train", str(root / name)]
    for name, settings in STAGES.items():
        for folder in (root / f"{name} whole", root / f"{name} resumed"):
            write_spec(folder, "sft", settings, sft_inputs)
        work += ["stage", str(root / f"{name} whole"), "stage", f"{root / f'{name} resumed'}:{root / f'{name} whole'}"]
    write_spec(root / "refused", "sft", STAGES["full"], sft_inputs)
    (root / "refused" / "of_four").touch()
    work += ["stage", f"{root / 'refused'}:{root / 'full whole'}"]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    command = [*torchrun, str(PROGRAM), *work]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=540, check=False)
    assert done.returncode == 0, done.stderr
    return root


def test_every_evaluation_is_that_of_the_whole_model(ran: Path) -> None:
    """With weights gathered by an earlier forward pass, which would hide that shards have moved: utilities are then
    off by 0.8 of the largest."""
    for rank in (0, 1):
        found = json.loads((ran / "measured" / f"found.{rank}.json").read_text())
        exact = {name: found.pop(name) for name in ("seen", "grad_left", "moved", "shards", "jvp_refused", "share")}
        assert exact == {
            **{"seen": 1.0, "jvp_refused": 1.0, "share": 0.5},
            **{"grad_left": 0.0, "moved": 0.0, "shards": 0.0},
        }
        assert set(found) == {"probe", "norm", "finite", "central", "stale", "means"}
        assert max(found.values()) < 1e-5, found


def test_every_method_trains_as_one_process_does(ran: Path, sft_inputs: dict[str, Path]) -> None:
    start = load_file(sft_inputs["model"] / "model" / "model.safetensors")
    far = {}
    for name, settings in TRAINED.items():
        spec = write_spec(ran / name / "one", "sft", {**settings, "micro_batch_size": 4}, sft_inputs)
        one, split = weights(train(open_stage(SftSettings, spec))), load_file(ran / name / "two.safetensors")
        assert one.keys() == split.keys()
        # Of an adapter the matrices that start at zero: what the others had at first is as large as random.
        trained = [tensor for tensor in one if "lora_B" in tensor] or list(one)
        apart = sum(float((one[tensor] - split[tensor]).square().sum()) for tensor in trained)
        moved = sum(float((one[tensor] - start.get(tensor, 0 * one[tensor])).square().sum()) for tensor in trained)
        far[name] = math.sqrt(apart / moved)
    measured = {name for name in far if "vcore" in name}  # differences of losses, whose rounding they divide
    assert max(far[name] for name in measured) < 3e-4, far
    assert max(far[name] for name in far.keys() - measured) < 1e-5, far


@pytest.mark.parametrize("name", STAGES)
def test_a_run_continues_to_the_same_bytes(ran: Path, name: str) -> None:
    """The whole stage: weights are put together, merged, saved and proved; and again from its checkpoint."""
    whole, resumed = ran / f"{name} whole", ran / f"{name} resumed"
    file = Path("output", "model", "model.safetensors")
    assert (whole / file).read_bytes() == (resumed / file).read_bytes()
    assert "resuming from step 2 of 3" in (resumed / "events.jsonl").read_text()
    proof = json.loads((whole / "proof.json").read_text())
    assert proof["checkpoint_reloads"]
    assert ("merge_difference" in proof) == (name == "lora")


def test_shares_of_a_direction_need_as_many_processes_again(ran: Path) -> None:
    for rank in (0, 1):
        message = (ran / "refused" / f"error.{rank}.txt").read_text()
        assert "was saved by 4 processes with a share of the weights each" in message
