"""What the orchestrator costs: plan, an all-cached run, publishing against a plain copy and against sha256 alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.store import Store
from tests.pipeline.test_plan import CONFIG, make

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
    print(
        f"\n  bare interpreter {python:.2f} s, vcore plan {seconds(command('plan')):.2f} s, all-cached run {seconds(command('run')):.2f} s"
    )


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
        store.publish("data", key, {"stage": "data", "key": key, "preimage": {}, "seconds": 0.0})
        spent.append(time.perf_counter() - started)
    publish = sorted(spent)[1]
    rate = size / 2**20
    print(
        f"\n  copy {rate / copy:.0f} MiB/s, sha256 {rate / sha:.0f} MiB/s, publish {rate / publish:.0f} MiB/s ({publish / sha:.2f}x sha256)"
    )
