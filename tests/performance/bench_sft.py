"""What token weights cost: one optimizer step of each method over plain SFT's (median of five rounds, with their
spread), and the peak memory of its process.

`pytest tests/performance/bench_sft.py -o "python_files=bench_*.py" -s`. Process CPU time on one thread, steps of all
methods in turn, so that a busy machine changes all alike. Floors are in forward passes F of the batch: a backward pass
costs 2 F (LoRA: 1 F, as frozen weights need no gradient), checkpointing 1 F more, a tangent 2 F (LoRA: 1 F); r is the
probe's share of the batch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from pipeline.estimate.time import extra_passes
from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.diagnostics import rank_agreement
from stages.sft.reweighting.utility import Derivatives
from stages.sft.reweighting.vcore import Vcore
from stages.sft.run import trainer_config
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.lora import lora_config
from stages.training.setup import prepare_torch
from tests.tiny import make_tiny_tokenizer, open_stage, tiny_demonstrations, write_spec

BATCH, LENGTH, STEPS = 16, 128, 5
ROUNDS = int(os.environ.get("VCORE_BENCH_ROUNDS", "5"))
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {"name": "uniform"},
    "dft": {"name": "dft"},
    "iw_sft": {"name": "iw_sft"},
    "deft": {"name": "deft"},
    "eaft": {"name": "eaft"},
    "profit": {"name": "profit", "threshold": 0.1},
    "trim_sft": {"name": "trim_sft"},
    "prift": {"name": "prift"},
    "prift, mass": {"name": "prift", "weights": "mass"},
    "wit": {"name": "wit"},
    "asft": {"name": "asft"},
    "asft, reverse": {"name": "asft", "kl": "reverse"},
    "vcore, default": {"name": "vcore"},
    "vcore, central": {"name": "vcore", "utility": "central_difference"},
    "vcore, jvp": {"name": "vcore", "utility": "jvp"},
    "vcore, ema r=1/16": {"name": "vcore", "direction": "ema", "probe_fraction": 0.0625},
    "vcore, previous": {"name": "vcore", "direction": "previous"},
    "vcore, momentum": {"name": "vcore", "direction": "momentum"},
    "vcore, paper": {"name": "vcore", "preset": "paper"},
}
CHOSEN = os.environ.get("VCORE_BENCH_METHODS", "")
"""Names of METHODS with `;` between them, to be measured beside plain SFT; empty for all."""
MEMORY_OF = ("uniform", "asft", "vcore, default", "vcore, central", "vcore, jvp", "vcore, paper")
"""Methods whose memory is measured, each in a process of its own."""
MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, checkpointing": {"gradient_checkpointing": True},
    "LoRA": {"lora": {"rank": 8}},
    "LoRA, checkpointing": {"lora": {"rank": 8}, "gradient_checkpointing": True},
    "full, bfloat16": {"dtype": "bfloat16"},
}


def floor(settings: SftSettings) -> float:
    """The least a step of these settings can cost relative to plain SFT, in forward passes."""
    forward_and_backward = (2 if settings.lora else 3) + (1 if settings.gradient_checkpointing else 0)
    forwards, probes = extra_passes(settings)
    return 1 + probes + forwards / forward_and_backward


def make_model(folder: Path) -> None:
    """A Qwen3 of 3 million parameters with a vocabulary whose head costs about as much as in real models."""
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tiny_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        **ids,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Clock(TrainerCallback):
    """CPU seconds from the end of one step to the end of the next: everything a step costs, its probe included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.process_time())

    @property
    def step(self) -> float:
        return statistics.median(b - a for a, b in zip(self.ends[1:], self.ends[2:], strict=False))


def train(
    folder: Path, base: Path, method: dict[str, Any], mode: dict[str, Any]
) -> tuple[Clock, ReweightingTrainer, SftSettings]:
    settings = {
        "method": method,
        "max_steps": STEPS,
        "batch_size": BATCH,
        "max_length": LENGTH,
        "logging_steps": STEPS,
        **mode,
    }
    context = open_stage(SftSettings, write_spec(folder, "sft", settings, {}, threads=1))
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(base, context.settings.dtype if context.settings.lora else "float32")
    rows = tiny_demonstrations(int(settings["batch_size"]) * STEPS)
    for row in rows:  # full rows: every position counts
        row["completion"][0]["content"] *= 12
    clock = Clock()
    weighting = make_method(context.settings.method, tokenizer, context.seed)
    if isinstance(weighting, Vcore):
        keep_direction(weighting)
    trainer = ReweightingTrainer(
        model=model,
        args=trainer_config(context),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]),
        processing_class=tokenizer,
        peft_config=lora_config(context.settings.lora),
        callbacks=[clock],
        method=weighting,
    )
    trainer.snapshots.due = lambda step, steps: False  # three times a run, whatever its length
    trainer.train()
    return clock, trainer, context.settings


def keep_direction(method: Vcore) -> None:
    """Have the method remember the last direction it took, as `kept`."""
    take = method.probe.next

    def taken(*given: Any) -> Any:
        method.kept = take(*given)
        return method.kept

    method.probe.next = taken


def agreement_with_exact(trainer: ReweightingTrainer) -> float | None:
    """Mean rank correlation of the method's utilities with the exact float32 ones of the same direction."""
    method = trainer.method
    if not isinstance(method, Vcore) or method.kept is None:
        return None
    evaluator = trainer.evaluator
    batch = evaluator.model_inputs(evaluator.collate([trainer.train_dataset[index] for index in range(8)]))
    mask = batch["labels"][:, 1:] != -100
    measured = method.measurement.measure(batch, evaluator, method.kept)
    evaluator.bfloat16, kept = False, evaluator.bfloat16
    exact = Derivatives().measure(batch, evaluator, method.kept)
    evaluator.bfloat16 = kept
    found = rank_agreement(measured, exact, mask)
    return sum(found) / len(found)


def peak_memory(base: Path, folder: Path, method: str, mode: str) -> float:
    """Peak resident memory in MiB of a process that trains two steps."""
    code = (
        "import sys, json, resource; from pathlib import Path; from tests.performance import bench_sft as b;"
        "b.STEPS = 2; b.train(Path(sys.argv[1]), Path(sys.argv[2]), b.METHODS[sys.argv[3]], b.MODES[sys.argv[4]]);"
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(base), method, mode], capture_output=True, text=True, check=True
    )
    return float(out.stdout.rpartition("PEAK")[2])


@pytest.mark.parametrize("mode", MODES)
def test_step_cost(tmp_path: Path, mode: str) -> None:
    make_model(tmp_path / "base")
    methods = {name: METHODS[name] for name in ["uniform", *CHOSEN.split(";")]} if CHOSEN else METHODS
    spent: dict[str, list[float]] = {name: [] for name in methods}
    floors, ranks = {}, {}
    for index in range(ROUNDS):
        for name, method in methods.items():
            folder = tmp_path / f"{index}-{len(spent[name])}-{abs(hash(name))}"
            clock, trainer, settings = train(folder, tmp_path / "base", method, MODES[mode])
            spent[name].append(clock.step)
            floors[name], ranks[name] = floor(settings), agreement_with_exact(trainer)
    plain = statistics.median(spent["uniform"])
    start = peak_memory(tmp_path / "base", tmp_path / "m0", "uniform", mode)
    print(f"\n{mode}: plain SFT {1000 * plain:.0f} ms CPU a step of {BATCH} x {LENGTH} tokens, peak {start:.0f} MiB")
    print(f"{'method':22} {'time':>20} {'floor':>6} {'memory':>7} {'rank correlation to exact':>26}")
    table = {}
    for index, name in enumerate(methods):
        ratios = sorted(one / other for one, other in zip(spent[name], spent["uniform"], strict=True))
        time_of = {"time": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}
        measured = peak_memory(tmp_path / "base", tmp_path / f"m{index + 1}", name, mode) if name in MEMORY_OF else None
        memory = None if measured is None else measured / start
        table[name] = {**time_of, "floor": floors[name], "memory": memory, "rank": ranks[name]}
        spread = f"{time_of['time']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        shown = ["" if value is None else f"{value:.{digits}f}" for value, digits in ((memory, 2), (ranks[name], 3))]
        print(f"{name:22} {spread:>20} {floors[name]:6.2f} {shown[0]:>7} {shown[1]:>26}", flush=True)
    print(json.dumps({mode: table}))


def test_directions_beside_the_gradient_of_many_rows(tmp_path: Path) -> None:
    """How well the direction of the step before, and today's probe, agree with the gradient of 16 batches, and the
    utilities along them with those along it: at three points of training from scratch at the demo's learning rate."""
    make_model(tmp_path / "base")
    found: dict[int, dict[str, tuple[float, float]]] = {}

    class Watched(Vcore):
        def prepare(self, window: Any, model: Any) -> Any:
            if window.step in (5, 25, 59):
                population = model.probe_gradient(16.0, 100_000 + window.step)
                batch = window.batches[0]
                exact = model.utilities(batch, population)
                mask = batch["labels"][:, 1:] != -100
                found[window.step] = {}
                for name, direction in (
                    ("previous", self.probe.kept),
                    ("probe of an eighth", model.probe_gradient(0.125, window.step)),
                ):
                    one, other = (torch.cat([part.flatten() for part in parts]) for parts in (direction, population))
                    ranks = rank_agreement(model.utilities(batch, direction), exact, mask)
                    cosine = torch.cosine_similarity(one, other, dim=0).item()
                    found[window.step][name] = cosine, sum(ranks) / len(ranks)
            return super().prepare(window, model)

    settings = {"method": {"name": "vcore", "direction": "previous"}, "max_steps": 60, "batch_size": 32}
    settings |= {"max_length": LENGTH, "logging_steps": 20, "learning_rate": 2e-3, "micro_batch_size": 16}
    context = open_stage(SftSettings, write_spec(tmp_path / "run", "sft", settings, {}, threads=1))
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(tmp_path / "base", "float32")
    rows = [{name: row[name] for name in ("prompt", "completion")} for row in tiny_demonstrations(2048)]
    assert isinstance(context.settings.method, VcoreSettings)
    trainer = ReweightingTrainer(
        model=model,
        args=trainer_config(context),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        method=Watched(context.settings.method),
    )
    trainer.snapshots.due = lambda step, steps: False
    trainer.train()
    for step, agreements in found.items():
        for name, (cosine, rank) in agreements.items():
            print(f"\n  step {step + 1}, {name}: cosine {cosine:.2f}, rank correlation of utilities {rank:.2f}")
