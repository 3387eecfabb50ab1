"""Plain SFT beside TRL's own SFTTrainer on rows of real lengths: its speed, and what a step's time goes to.

`pytest tests/performance/bench_sft_step.py -o "python_files=bench_*.py" -s`. CPU time of the process on one thread, all
variants in turn. VCORE_BENCH_OUT: a folder for a drawing of a step's parts.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

from stages.sft.reweighting import make_method
from stages.sft.run import trainer_config
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.setup import prepare_torch
from tests.performance.bench_sft import make_model
from tests.tiny import open_stage, write_spec

ROWS, STEPS, ROUNDS = 32, 5, 2
PARTS = {"utilities": "#d29922", "forward": "#2f81f7", "backward": "#1f4e8c", "optimizer": "#57ab5a", "rest": "#8a8f98"}
VCORE = {"method": {"name": "vcore"}}
PACKED = {"max_tokens_per_micro_batch": 1024, "packing": True}
VARIANTS: dict[str, tuple[bool, dict[str, Any]]] = {
    "SFTTrainer, 4 rows": (True, {"micro_batch_size": 4}),
    "4 rows": (False, {"micro_batch_size": 4}),
    "budget of 1,024": (False, {"max_tokens_per_micro_batch": 1024}),
    "4 rows, packing": (False, {"micro_batch_size": 4, "packing": True}),
    "1,024, packing": (False, PACKED),
    "SFTTrainer, all 32": (True, {}),
    "all 32, packing": (False, {"packing": True}),
    "vcore, 4 rows": (False, {"micro_batch_size": 4, **VCORE}),
    "vcore, 1,024, packing": (False, PACKED | VCORE),
    "vcore previous, 1,024, packing": (False, PACKED | {"method": {"name": "vcore", "direction": "previous"}}),
}


@dataclasses.dataclass
class Measured:
    """CPU seconds of a step and of each of its parts: medians over the steps after the first. `positions` counts those
    that the model computed, in training passes and others, in all steps."""

    step: float
    parts: dict[str, float]
    positions: int


class Profile(TrainerCallback):
    """Seconds from the end of one step to the end of the next, and within them those of what `timed` wraps."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.spent: list[dict[str, float]] = []
        self._now: defaultdict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self._now[part] += time.process_time() - begun

        return call

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        optimizer.step = self.timed("optimizer", optimizer.step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.process_time())
        self.spent.append(dict(self._now))
        self._now.clear()

    def medians(self) -> tuple[float, dict[str, float]]:
        step = statistics.median(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))
        parts = {part: statistics.median(one.get(part, 0.0) for one in self.spent[1:]) for part in PARTS}
        parts["rest"] = step - sum(parts.values())
        return step, parts


def train_on_lengths(
    folder: Path, base: Path, lengths: list[int], stock: bool, cut: dict[str, Any], steps: int = STEPS
) -> Measured:
    """Train on rows of these lengths, `ROWS` a step: TRL's SFTTrainer where `stock`, else the stage's."""
    settings: dict[str, Any] = {"method": {"name": "uniform"}, "max_steps": steps, "batch_size": ROWS, **cut}
    settings |= {"max_length": 512, "logging_steps": steps}
    context = open_stage(SftSettings, write_spec(folder, "sft", settings, {}, threads=1))
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(base, "float32")
    positions: list[int] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda _, args: positions.append(args[0].shape[0] * args[0].shape[1])
    )
    draw = np.random.default_rng(0)
    rows = [
        {"input_ids": draw.integers(10, 250, length).tolist(), "completion_mask": [int(i >= 4) for i in range(length)]}
        for length in lengths
    ]
    profile = Profile()
    own: dict[str, Any] = {}
    if not stock:
        own = {"method": make_method(context.settings.method, tokenizer, context.seed)}
        own["method"].prepare = profile.timed("utilities", own["method"].prepare)
        own["max_tokens"] = context.settings.max_tokens_per_micro_batch
        own["packing"] = context.settings.packing
    trainer = (SFTTrainer if stock else ReweightingTrainer)(
        model=model,
        args=trainer_config(context),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[profile],
        **own,
    )
    trainer.compute_loss = profile.timed("forward", trainer.compute_loss)
    trainer.accelerator.backward = profile.timed("backward", trainer.accelerator.backward)
    if not stock:
        trainer.snapshots.due = lambda step, steps: False
    trainer.train()
    return Measured(*profile.medians(), positions=sum(positions))


def real_lengths() -> list[int]:
    """Lognormal: the 95th percentile is over three times the median."""
    count = ROWS * STEPS
    normal = [statistics.NormalDist(np.log(80), 0.75).inv_cdf((row + 0.5) / count) for row in range(count)]
    return [int(length) for length in np.clip(np.exp(normal), 8, 512)]


def test_rows_of_real_lengths(tmp_path: Path) -> None:
    """Tokens/s beside SFTTrainer's, and each step's parts."""
    make_model(tmp_path / "base")
    lengths = real_lengths()
    found: dict[str, list[Measured]] = {name: [] for name in VARIANTS}
    for index in range(ROUNDS):
        for number, (name, (stock, cut)) in enumerate(VARIANTS.items()):
            folder = tmp_path / f"{index}-{number}"
            found[name].append(train_on_lengths(folder, tmp_path / "base", lengths, stock, cut))
    first, *_ = found.values()
    print(f"\nSFT, {sum(lengths)} tokens; a step of the first {min(one.step for one in first):.2f} s")
    for name, runs in found.items():
        speeds = [one.step / other.step for one, other in zip(first, runs, strict=True)]
        parts = ", ".join(f"{part} {seconds / first[0].step:.2f}" for part, seconds in runs[0].parts.items())
        print(
            f"{name:32} {runs[0].positions} positions, tokens/s over the first's {min(speeds):.2f} to "
            f"{max(speeds):.2f}; of its step {parts}"
        )
    if folder_of_drawing := os.environ.get("VCORE_BENCH_OUT"):
        draw({name: runs[0] for name, runs in found.items()}, Path(folder_of_drawing, "sft-step.png"))


def draw(measured: dict[str, Measured], file: Path) -> None:
    """A bar for each variant: the parts of its step, over the whole of the first's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    whole = next(iter(measured.values())).step
    for place, run in enumerate(measured.values()):
        left = 0.0
        for part, colour in PARTS.items():
            width = run.parts[part] / whole
            axes.barh(place, width, left=left, color=colour, label=None if place else part)
            left += width
        axes.text(left + 0.01, place, f"{left:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(measured)), list(measured), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(run.step for run in measured.values()) / whole)
    axes.set_xlabel("processor time of a step of 32 rows, that of SFTTrainer with 4 rows = 1")
    figure.legend(fontsize=8, loc="outside upper right", ncols=len(PARTS), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
