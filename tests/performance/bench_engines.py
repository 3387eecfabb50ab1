"""Rollouts: tokens per second of vLLM beside plain generation, over completion lengths, their spread, and how many
there are at once; and one engine load for all benchmarks beside one for each.

`pytest tests/performance/bench_engines.py -o "python_files=bench_*.py" -s`. A model of the demo's size that is not
trained, so that it never stops by itself and lengths are what is asked for. Plain generation is `model.generate` on the
whole batch, as TRL does without vLLM: it runs until the longest completion is done, and only tokens that were asked for
count. The engine `transformers` of the evaluation batches requests of one limit, which those of one benchmark have.
Greedy, float32, each engine in a process of its own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.tiny import make_tiny_model

LENGTHS = {"32 each": "32", "128 each": "128", "8 to 248": "uniform", "32, one in ten 512": "tail"}
BATCHES = (16, 128, 512)
THREADS = os.cpu_count() or 1


def lengths(kind: str, count: int) -> list[int]:
    """Completion lengths of one batch, the same for every engine."""
    draw = random.Random(0)
    if kind == "uniform":
        return [draw.randint(8, 248) for _ in range(count)]
    if kind == "tail":
        return [512 if number % 10 == 0 else 32 for number in range(count)]
    return [int(kind)] * count


def measure(engine: str, folder: Path) -> dict[str, Any]:
    """Run in a process of its own: seconds to load, and tokens/s of each cell."""
    if engine == "vllm":
        from evaluation.engines import vllm_internals

        vllm_internals.prepare_environment(THREADS)
    import torch

    from evaluation.engines import EngineOptions, SamplingRequest, open_engine

    started = time.perf_counter()
    options = EngineOptions(device="cpu", dtype="float32", max_model_len=640, threads=THREADS, max_concurrent=512)
    torch.set_num_threads(THREADS)
    opened = (
        None if engine == "generate" else open_engine("vllm" if engine == "vllm" else "transformers", folder, options)
    )
    if opened is None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded = time.perf_counter() - started
    prompt = tuple(range(10, 50))
    found: dict[str, float] = {}
    for batch in BATCHES:
        for name, kind in LENGTHS.items():
            wanted = lengths(kind, batch)
            best = float("inf")
            for _ in range(2):
                begun = time.perf_counter()
                if opened is not None:
                    opened.generate([SamplingRequest(prompt, n) for n in wanted])
                else:
                    ids = torch.tensor([prompt] * batch)
                    model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        max_new_tokens=max(wanted),
                        do_sample=False,
                        eos_token_id=None,
                    )
                best = min(best, time.perf_counter() - begun)
            found[f"{batch} x {name}"] = sum(wanted) / best
    if opened is not None:
        opened.close()
    return {"load_s": loaded, "tokens_per_s": found}


def in_process(engine: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.performance.bench_engines", engine, str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_rollouts_and_loads(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", hidden_size=128, positions=1024)
    vllm, plain, own = (in_process(engine, folder) for engine in ("vllm", "generate", "transformers"))
    print(f"\n  tokens/s, {THREADS} threads; load: vLLM {vllm['load_s']:.1f} s, transformers {own['load_s']:.1f} s")
    print(f"  {'completions':<28} {'vLLM':>8} {'generate':>9} {'ratio':>6} {'engine transformers':>20}")
    for name, rate in vllm["tokens_per_s"].items():
        other, ours = plain["tokens_per_s"][name], own["tokens_per_s"][name]
        print(f"  {name:<28} {rate:>8,.0f} {other:>9,.0f} {rate / other:>6.2f} {ours:>20,.0f}")
    sampling = 128 * 128 / vllm["tokens_per_s"]["128 x 128 each"]
    for benchmarks in (1, 4, 8):
        one, each = vllm["load_s"] + benchmarks * sampling, benchmarks * (vllm["load_s"] + sampling)
        loads = f"one load {one:.1f} s, one each {each:.1f} s, ratio {each / one:.2f}"
        print(f"  {benchmarks} benchmarks of 128 x 128 tokens: {loads}")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
