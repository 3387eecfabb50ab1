"""What token weights cost: one optimizer step of each method over plain SFT's, interleaved in one process.

Floors, in forward passes of the batch (backward = 2): uniform 3; VCORE one-sided with a probe of fraction r: 3 + 3r + 1.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from stages import training
from stages.sft.reweighting import make_method
from stages.sft.settings import SftSettings
from stages.sft.train import trainer_config
from stages.sft.trainer import ReweightingTrainer
from tests.tiny import make_tiny_model, open_stage, tiny_demonstrations, write_spec

METHODS = {
    "uniform": {"name": "uniform"},
    "dft": {"name": "dft"},
    "vcore r=1/4": {"name": "vcore"},
    "vcore r=1/4, central": {"name": "vcore", "utility": "central_difference"},
    "vcore r=1": {"name": "vcore", "probe_fraction": 1.0},
}
STEPS, BATCH = 12, 16


def test_step_time(tmp_path: Path) -> None:
    from datasets import Dataset

    make_tiny_model(tmp_path / "base" / "model", hidden_size=128, layers=4)
    rows = [{"prompt": r["prompt"], "completion": r["completion"]} for r in tiny_demonstrations(BATCH * STEPS)]
    spent: dict[str, list[float]] = {name: [] for name in METHODS}
    for repeat in range(3):
        for name, method in METHODS.items():
            folder = tmp_path / f"{name.replace('/', '_')}-{repeat}"
            settings = {"method": method, "max_steps": STEPS, "batch_size": BATCH, "max_length": 128, "logging_steps": STEPS}
            context = open_stage(SftSettings, write_spec(folder, "sft", settings, {}, threads=1))
            training.prepare_torch(context)
            model, tokenizer = training.load_model_and_tokenizer(tmp_path / "base" / "model", "float32")
            trainer = ReweightingTrainer(
                model=model,
                args=trainer_config(context),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                method=make_method(context.settings.method),
            )
            started = time.perf_counter()
            trainer.train()
            spent[name].append((time.perf_counter() - started) / STEPS)
    base = sorted(spent["uniform"])[1]
    table = {name: round(sorted(times)[1] / base, 2) for name, times in spent.items()}
    print(f"\n  uniform {1000 * base:.0f} ms a step ({torch.get_num_threads()} thread); ratios {json.dumps(table)}")
