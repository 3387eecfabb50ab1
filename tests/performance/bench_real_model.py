"""A pretrained model on a CPU: its sampling (vLLM beside transformers, number formats, with and without compilation,
this project's engine beside vLLM's own offline interface), and plain SFT beside TRL's own SFTTrainer.

`VCORE_BENCH_MODEL=FOLDER pytest tests/performance/bench_real_model.py -o "python_files=bench_*.py" -s`, where the
folder is a complete checkpoint, such as `model` in the artifact of the base stage of configs/smollm2-135m.yaml. Each
measurement has a process of its own, which loads the model and then samples; rounds go through all of them in turn.
Prompts are of random tokens, all different; what counts are the tokens drawn. No model comes with the project: without
the variable nothing is measured, and the skip says so. A round takes minutes, longer than a test may.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MODEL = os.environ.get("VCORE_BENCH_MODEL", "")
ROWS = os.environ.get("VCORE_BENCH_ROWS", "")
THREADS = os.cpu_count() or 1
PROMPT = 100
BATCHES = ((1, 64), (16, 64), (128, 64))
"""Completions at once, and tokens of each."""
HUMANEVAL_TOKENS = 256
FOUND = "FOUND "
ROUNDS = int(os.environ.get("VCORE_BENCH_ROUNDS", "2"))
pytestmark = [
    pytest.mark.skipif(not MODEL, reason="NOT MEASURED: VCORE_BENCH_MODEL names no checkpoint"),
    pytest.mark.timeout(0),
]


@dataclasses.dataclass(frozen=True)
class Way:
    """How a model is sampled. `direct`: through vllm.LLM with vLLM's own defaults."""

    engine: str
    dtype: str
    compiled: bool = False
    direct: bool = False

    def __str__(self) -> str:
        more = ", its own interface and defaults" if self.direct else ", compiled" if self.compiled else ""
        return f"{self.engine} {self.dtype}{more}"


WAYS = (
    Way("vllm", "bfloat16"),
    Way("vllm", "float32"),
    Way("vllm", "bfloat16", compiled=True),
    Way("vllm", "bfloat16", direct=True),
    Way("transformers", "bfloat16"),
    Way("transformers", "float32"),
)


def prompts(count: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(1000, 40_000) for _ in range(PROMPT)] for _ in range(count)]


def measure(way: Way, batches: list[tuple[int, int]]) -> dict[str, Any]:
    """Seconds to load, and new tokens/s of each batch."""
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    started = time.perf_counter()
    sample = _direct(way) if way.direct else _engine(way)
    sample(2, 4)
    loaded = time.perf_counter() - started
    rates = []
    for count, tokens in batches:
        begun = time.perf_counter()
        drawn = sample(count, tokens)
        rates.append(drawn / (time.perf_counter() - begun))
    return {"load_s": loaded, "rates": rates}


def _engine(way: Way) -> Any:
    if way.engine == "vllm":
        from evaluation.engines import vllm_internals

        vllm_internals.prepare_environment(THREADS, way.compiled)
    from evaluation.engines import EngineOptions, SamplingRequest, open_engine

    options = EngineOptions("cpu", way.dtype, max_model_len=512, threads=THREADS, cpu_compile=way.compiled)
    engine = open_engine("vllm" if way.engine == "vllm" else "transformers", Path(MODEL), options)

    def sample(count: int, tokens: int) -> int:
        return sum(one.tokens for one in engine.generate([SamplingRequest(tuple(p), tokens) for p in prompts(count)]))

    return sample


def _direct(way: Way) -> Any:
    import vllm

    llm = vllm.LLM(model=MODEL, dtype=way.dtype, max_model_len=1024, seed=0)

    def sample(count: int, tokens: int, given: list[list[int]] | None = None) -> int:
        asked: Any = [vllm.TokensPrompt(prompt_token_ids=prompt) for prompt in given or prompts(count)]
        done = llm.generate(asked, vllm.SamplingParams(temperature=0.0, max_tokens=tokens), use_tqdm=False)
        return sum(len(one.outputs[0].token_ids) for one in done)

    return sample


def in_process(way: Way, batches: list[tuple[int, int]]) -> dict[str, Any]:
    return _run(json.dumps({"way": dataclasses.asdict(way), "batches": batches}))


def _run(asked: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.performance.bench_real_model", asked]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert answer.returncode == 0, answer.stderr[-3000:]
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith(FOUND)]  # vLLM writes there, too
    found: dict[str, Any] = json.loads(line.removeprefix(FOUND))
    return found


def test_engines() -> None:
    found: dict[Way, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            found[way].append(in_process(way, list(BATCHES)))
            print(way, found[way][-1], flush=True)
    names = " | ".join(f"{count} x {tokens}" for count, tokens in BATCHES)
    print(f"\n| new tokens/s, {THREADS} threads | load, s | {names} |\n|---|---|{'---|' * len(BATCHES)}")
    for way, rounds in found.items():
        columns = zip(*(r["rates"] for r in rounds), strict=True)
        rates = [" to ".join(f"{rate:,.0f}" for rate in sorted(each)) for each in columns]
        loads = " to ".join(f"{one:.0f}" for one in sorted(r["load_s"] for r in rounds))
        print(f"| {way} | {loads} | {' | '.join(rates)} |")


def humaneval_directly(generations: Path) -> dict[str, Any]:
    """Seconds that vllm.LLM takes to load, and to sample the prompts of a generations file."""
    from transformers import AutoTokenizer

    rows = [json.loads(line) for line in generations.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    asked = [tokenizer(row["prompt"], add_special_tokens=False)["input_ids"] for row in rows]
    started = time.perf_counter()
    sample = _direct(Way("vllm", "bfloat16", direct=True))
    loaded = time.perf_counter()
    tokens = sample(0, HUMANEVAL_TOKENS, asked)
    return {"load_s": loaded - started, "generate_s": time.perf_counter() - loaded, "tokens": tokens}


def test_humaneval_plus_beside_vllms_own_interface(tmp_path: Path) -> None:
    """`vcore eval`'s sampling stage beside vllm.LLM on the same prompts; VCORE_DATA_DIR has the benchmark."""
    vcore = str(Path(sys.executable).with_name("vcore"))
    for number in range(ROUNDS):
        home = tmp_path / str(number)
        options = ["--max-new-tokens", str(HUMANEVAL_TOKENS), "--home", str(home), "--set", "generate.dtype=bfloat16"]
        started = time.perf_counter()
        command = [vcore, "eval", MODEL, "--benchmarks", "humaneval_plus", *options]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert ran.returncode == 0, ran.stderr[-3000:]
        whole = time.perf_counter() - started
        (manifest,) = (home / "store" / "generate").glob("*/manifest.json")
        ours = json.loads(manifest.read_text(encoding="utf-8"))["metrics"]
        asked = json.dumps({"generations": str(manifest.parent / "generations.jsonl")})
        theirs = _run(asked)
        ratio = (ours["load_s"] + ours["generate_s"]) / (theirs["load_s"] + theirs["generate_s"])
        print(
            f"\n  vcore eval {whole:.0f} s whole; {ours}\n  vllm.LLM {theirs}\n  load and sampling: ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if "way" in given:
        result = measure(Way(**given["way"]), [tuple(batch) for batch in given["batches"]])
    else:
        result = humaneval_directly(Path(given["generations"]))
    print("\n" + FOUND + json.dumps(result))


@pytest.mark.skipif(not ROWS, reason="NOT MEASURED: VCORE_BENCH_ROWS names no sft.jsonl, as the data stage makes it")
def test_sft_beside_trls_own(tmp_path: Path) -> None:
    """Plain SFT in bfloat16 on rows as long as these, 32 a step: processor time on one thread, in turns."""
    from transformers import AutoTokenizer

    from tests.performance.bench_sft_step import train_on_lengths

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rows = [json.loads(line) for line in Path(ROWS).read_text(encoding="utf-8").splitlines()[: 32 * 3]]
    texts = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in rows]
    lengths = [min(512, len(tokenizer(text)["input_ids"])) for text in texts]
    at_once: dict[str, Any] = {"dtype": "bfloat16", "micro_batch_size": 16}
    variants = {"TRL": (True, at_once), "ours": (False, at_once), "ours, packed": (False, at_once | {"packing": True})}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(ROUNDS):
        for number, (name, (stock, cut)) in enumerate(variants.items()):
            folder = tmp_path / f"{index}-{number}"
            run = train_on_lengths(folder, Path(MODEL), lengths, stock, cut, steps=3)
            seconds[name].append(run.step)
            print(f"\n  {name}: {run.step:.1f} s a step, {run.positions} positions in all", end="")
    for name, spent in seconds.items():
        ratios = [one / other for one, other in zip(seconds["TRL"], spent, strict=True)]
        print(f"\n  {name}: tokens/s {min(ratios):.2f} to {max(ratios):.2f} times TRL's", end="")
