"""What the orchestrator costs: plan, an all-cached run, a stage beside its bare program, publishing and verifying
against a plain copy and sha256 alone, and many cells of a sweep at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.store.documents import ManifestDraft, Preimage
from pipeline.store.store import Store
from pipeline.sweep import fan_out as fanout
from pipeline.sweep.documents import SweepRecord
from pipeline.sweep.sweep import load_sweep
from tests.pipeline.helpers import CONFIG, make

ROOT = Path(__file__).resolve().parents[2]


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def test_plan_and_cached_run(tmp_path: Path) -> None:
    make(tmp_path)
    home = ["--set", f"home={tmp_path / 'home'}"]
    (tmp_path / "small.yaml").write_text(CONFIG)

    def command(name: str) -> Callable[[], object]:
        line = [sys.executable, "-m", "pipeline", name, str(tmp_path / "small.yaml"), *home]
        return lambda: subprocess.run(line, cwd=ROOT, capture_output=True, check=True)

    python = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    plan, run = seconds(command("plan")), seconds(command("run"))
    print(f"\n  bare interpreter {python:.2f} s, vcore plan {plan:.2f} s, all-cached run {run:.2f} s")


def test_publish(tmp_path: Path) -> None:
    size = 256 * 2**20
    payload = tmp_path / "payload"
    payload.write_bytes(os.urandom(size))
    copy = seconds(lambda: shutil.copyfile(payload, tmp_path / "copy"), 3)
    sha = seconds(lambda: hashlib.file_digest(payload.open("rb"), "sha256"), 3)
    store, keys = Store(tmp_path / "home"), iter(range(99))
    spent = []
    for _ in range(3):
        key = f"k{next(keys)}"
        out = store.work("data", key) / "out"
        out.mkdir(parents=True)
        shutil.copyfile(payload, out / "payload")
        started = time.perf_counter()
        store.publish("data", key, ManifestDraft(stage="data", key=key, preimage=Preimage(), seconds=0.0))
        spent.append(time.perf_counter() - started)
    publish = sorted(spent)[1]
    verify = seconds(lambda: store.find("data", "k0", reread=True), 3)
    rate = size / 2**20
    published = f"publish {rate / publish:.0f} MiB/s ({publish / sha:.2f}x sha256)"
    print(f"\n  copy {rate / copy:.0f} MiB/s, sha256 {rate / sha:.0f} MiB/s, {published}")
    print(f"  verify {rate / verify:.0f} MiB/s ({verify / sha:.2f}x sha256)")


CHAIN = """
import json, pathlib, sys, time
from pipeline.prefect_.run import run
from tests.kill import run_chain
session = run_chain.prepare(pathlib.Path(sys.argv[1]), False)
started = time.perf_counter()
run(session)
print(json.dumps(time.perf_counter() - started))
"""


def test_a_stage_beside_its_bare_program(tmp_path: Path) -> None:
    """Three stages through executor, launcher and store, and the same three programs started by hand with their
    specs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", CHAIN, str(tmp_path / "home")]
    answer = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    through = float(json.loads(answer.stdout.splitlines()[-1]))
    bare = 0.0
    for steps in (40, 15, 30):
        folder = tmp_path / f"bare{steps}"
        (folder / "out").mkdir(parents=True)
        (folder / "state").mkdir()
        spec = {"stage": "chain", "settings": {"steps": steps, "checkpoint_steps": 5}, "inputs": {}, "seed": 0}
        spec |= {
            "output": str(folder / "out"),
            "state": str(folder / "state"),
            "machine": {"device": "cpu", "threads": 1},
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-P", "-m", "tests.kill.chain", str(folder / "spec.json")],
            env=environment,
            check=True,
        )
        bare += time.perf_counter() - started
    print(f"\n  three stages {through:.2f} s, their bare programs {bare:.2f} s: {(through - bare) / 3:.2f} s a stage")


def test_fan_out(tmp_path: Path) -> None:
    """Twelve cells of half a second, two at a time: three seconds if starting and following them cost nothing."""
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "sweep.yaml").write_text(f"config: small.yaml\nname: s\nmatrix: {{seed: {list(range(12))}}}\n")
    (tmp_path / "cell.py").write_text(
        "import json, time\ntime.sleep(0.5)\nprint(json.dumps({'run': 'r', 'stages': []}))\n"
    )
    loaded = load_sweep(tmp_path / "sweep.yaml", [f"home={tmp_path / 'home'}"])
    real = fanout.LocalProcess
    fanout.LocalProcess = lambda command, *files: real([sys.executable, str(tmp_path / "cell.py")], *files)  # type: ignore[misc]
    try:
        started = time.perf_counter()
        record = SweepRecord.start(Store(tmp_path / "home").home, loaded, "")
        fanout.run_cells(loaded, record, tmp_path / "home", 2, False, lambda text: None)
        spent = time.perf_counter() - started
    finally:
        fanout.LocalProcess = real  # type: ignore[misc]
    print(f"\n  12 cells of 0.5 s on 2 workers: {spent:.2f} s, ideal 3.00 s, efficiency {3 / spent:.2f}")
