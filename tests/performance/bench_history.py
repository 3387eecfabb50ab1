"""A history of 400 runs of 1,319 problems x 4 samples: `vcore history`, its page and `vcore gate`, beside reading every
score record of the store."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from tests.pipeline.history.nights import Night, make_nights

ROOT = Path(__file__).resolve().parents[2]
RUNS, PROBLEMS, SAMPLES = 400, 1319, 4
SCAN = """
import pathlib, sys
from evaluation.comparison import read_measured, right_shares
for folder in sorted(pathlib.Path(sys.argv[1]).glob("store/score/*")):
    for measured in read_measured(folder).values():
        right_shares(measured.scores)
"""
COLUMNS = """
import pathlib, sys
from pipeline.store.scores import read_outcomes
kept = [read_outcomes(file) for file in pathlib.Path(sys.argv[1]).glob("store/score/*/scores.jsonl")]
assert len(kept) == 400
"""
FAST = """
import pathlib, sys
from pipeline.store.scores import load_outcomes
from pipeline.store.store import Store
store = Store.existing(pathlib.Path(sys.argv[1]))
kept = [load_outcomes(store.find(program, key).artifact) for program, key, _ in store.artifacts()]
assert len(kept) == 400
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nights")
    draw = random.Random(0)
    ease = [draw.random() for _ in range(PROBLEMS)]

    def night() -> Night:
        verdicts = [["correct" if draw.random() < p else "wrong" for _ in range(SAMPLES)] for p in ease]
        return Night({"grpo": verdicts})

    make_nights(folder, [night() for _ in range(RUNS)])
    return folder


def measured(command: list[str], repeats: int = 3) -> str:
    """`1.23 s of CPU (1.20-1.30), 1.1 s, 210 MiB`: median and range of the processor time, median wall time, and the
    most resident memory."""
    line = [sys.executable, "-c", _WITH_USAGE, *command]
    processor, wall, memory = [], [], 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        answer = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        wall.append(time.perf_counter() - started)
        used, resident = json.loads(answer.stdout.splitlines()[-1])
        processor.append(used)
        memory = max(memory, resident)
    spread = f"{median(processor):.2f} s of CPU ({min(processor):.2f}-{max(processor):.2f})"
    return f"{spread}, {median(wall):.2f} s, {memory:.0f} MiB"


_WITH_USAGE = """
import json, resource, subprocess, sys
ended = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
assert ended.returncode in (0, 3, 4), ended  # 3 and 4: a gate that failed, or is undecided
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def test_a_history_of_400_runs(home: Path, tmp_path: Path) -> None:
    place = ["--home", str(home)]
    print(f"\n  {RUNS} runs of {PROBLEMS} problems x {SAMPLES} samples")
    print(f"  vcore history           {measured(['-m', 'pipeline', 'history', 'nightly', *place])}")
    page = ["-m", "pipeline", "history", "nightly", *place, "--out", str(tmp_path)]
    drawn = measured(page)
    gate = ["-m", "pipeline", "gate", "latest", "--max-drop", "1", *place]
    print(f"  vcore gate latest       {measured(gate)}")
    print(f"  vcore history --out     {drawn}, page {(tmp_path / 'history.html').stat().st_size / 1024:.0f} KiB")
    print(f"  outcomes alone          {measured(['-c', FAST, str(home)])}")
    (home / "cache" / "digests.json").unlink()
    print(f"  the same, digests anew  {measured(['-c', FAST, str(home)])}")
    print(f"  without summaries       {measured(['-c', COLUMNS, str(home)])}")
    print(f"  every record of scores  {measured(['-c', SCAN, str(home)], repeats=1)}")
