"""What VCORE costs where FSDP2 shares the model out over two processes.

`pytest tests/performance/bench_sharded.py -o "python_files=bench_*.py" -s`. gloo on a CPU: processor time of both
processes together, all methods in turn in one pair, over plain SFT's. The floor is in forward passes, as in
bench_sft.py.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.performance.bench_sft import METHODS, MODES, floor, make_model, train

ROUNDS = 3
SHARDED = {name: METHODS[name] for name in ("uniform", "dft", "vcore, central", "vcore, ema r=1/16")} | {
    "vcore, default": {"name": "vcore", "utility": "finite_difference"},
    "vcore, previous": {"name": "vcore", "utility": "finite_difference", "direction": "previous"},
}
SIZES: dict[str, dict[str, Any]] = {
    "16 rows at once": {"batch_size": 16},
    "64 rows at once": {"batch_size": 64},
    "64 rows in micro-batches of 16": {"batch_size": 64, "micro_batch_size": 8},
}
"""Steps of rows of 128 tokens. Weights are gathered as often whatever a pass computes, so small passes pay most."""


def measure(folder: Path, size: str) -> dict[str, dict[str, Any]]:
    """Of each method: processor seconds of a step of both processes, round by round, and the floor."""
    from stages.training import distributed
    from tests.stages.sft.sharded.program import shard_on_the_cpu

    shard_on_the_cpu()
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in SHARDED}
    for index in range(ROUNDS):
        for number, (name, method) in enumerate(SHARDED.items()):
            own = folder / f"{index}-{number}-{os.environ['RANK']}"
            clock, _, settings = train(own, folder.parent / "base", method, MODES["full"] | SIZES[size])
            found[name]["floor"] = floor(settings)
            found[name]["seconds"].append(sum(distributed.gather(clock.step)))
            gc.collect()
    return found


@pytest.mark.timeout(0)
@pytest.mark.parametrize("size", SIZES)
def test_sharded_steps(tmp_path: Path, size: str) -> None:
    make_model(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [*torchrun, "-m", "tests.performance.bench_sharded", str(out), size]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads((out / "found.json").read_text(encoding="utf-8"))
    plain = found["uniform"]
    print(f"\n{size}: plain SFT {statistics.median(plain['seconds']):.2f} s of processor time a step, both processes")
    for name, of_method in found.items():
        ratios = [one / other for one, other in zip(of_method["seconds"], plain["seconds"], strict=True)]
        print(f"  {name:20} time {min(ratios):.2f} to {max(ratios):.2f} (floor {of_method['floor']:.2f})")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    measured = measure(where, sys.argv[2])
    if os.environ["RANK"] == "0":
        (where / "found.json").write_text(json.dumps(measured), encoding="utf-8")
