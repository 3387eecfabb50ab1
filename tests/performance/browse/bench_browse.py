"""The site of 400 runs and 100,000 samples: what building it takes, and how long its page takes to filter all samples
in a browser."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from tests.performance.bench_history import measured
from tests.performance.browse.tab import opened
from tests.pipeline.history.nights import Night, make_nights
from tests.stages.report.test_browser import CHROME

RUNS, PROBLEMS, WORDS = 400, 250, 150
SEARCHES = ({"text": "7"}, {"text": "question 12"}, {"verdict": "w"}, {"text": "no such words"})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nights")
    draw = random.Random(0)
    words = [str(draw.randrange(10**6)) for _ in range(1000)]

    def night() -> Night:
        verdicts = [["correct" if draw.random() < 0.6 else "wrong"] for _ in range(PROBLEMS)]
        answers = {("grpo", i, 0): " ".join(draw.choices(words, k=WORDS)) for i in range(PROBLEMS)}
        return Night({"grpo": verdicts}, answers=answers)

    make_nights(folder, [night() for _ in range(RUNS)], samples=True)
    return folder


def test_a_site_of_400_runs(home: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    line = ["-m", "pipeline", "browse", "--home", str(home), "--out", str(site), "--samples", str(RUNS * PROBLEMS)]
    print(f"\n  {RUNS} runs, {RUNS * PROBLEMS:,} samples: {measured(line)}")
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    print(f"  {size / 2**20:.0f} MiB in {sum(file.is_file() for file in site.rglob('*'))} files")
    if CHROME is None:
        pytest.skip("no browser here: FILTERING WAS NOT MEASURED")
    with opened(tmp_path, (site / "index.html").as_uri()) as tab:
        evaluate = tab.evaluate
        while evaluate("document.readyState") != "complete":
            time.sleep(0.1)
        print(f"  first paint after {evaluate(PAINT):.0f} ms")
        loaded = evaluate(LOAD)
        print(f"  columns of all samples loaded in {loaded['ms']:.0f} ms, heap {loaded['heap'] / 2**20:.0f} MiB")
        for want in SEARCHES:
            took = sorted(evaluate(FILTER % json.dumps(want))["ms"] for _ in range(7))
            print(f"  {json.dumps(want):<26} {took[3]:.0f} ms ({took[0]:.0f}-{took[-1]:.0f})")


PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LOAD = """(async () => {
  const started = performance.now();
  const site = await vcore.load("site");
  window.sets = await Promise.all(site.scores.map((_, number) => vcore.samplesOf(number)));
  return { ms: performance.now() - started, heap: performance.memory.usedJSHeapSize };
})()"""
FILTER = """(async () => {
  const started = performance.now();
  const found = vcore.filterSamples(window.sets, %s);
  return { ms: performance.now() - started, found: found.length };
})()"""
