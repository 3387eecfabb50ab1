"""What VCORE's utilities are worth on a pretrained model: measured against exact ones, and along other directions.

`VCORE_BENCH_MODEL=FOLDER VCORE_BENCH_ROWS=sft.jsonl VCORE_BENCH_OUT=FOLDER pytest tests/performance/bench_utilities.py
-o "python_files=bench_*.py" -s`: a complete checkpoint, the rows of a data stage's artifact, and where utilities.json
and the figure go. Plain SFT in float32 of 16 rows a step; at three points of it, and one step after the second, the
utilities of the same 16 rows, which it does not train on, are measured without touching the training:

- along the gradient of 1 to 64 rows, in two halves that share none, and of 128 further rows, which stand for the
  population;
- along what a training has anyway: the gradient of the step before, of the four steps before, Adam's momentum; and
  along some of these divided by Adam's root of the second moments, beside the population's so divided;
- by finite and central differences over fixed and steered steps, in float32 and under bfloat16's autocast.

All are compared by rank correlation over a row's supervised tokens, mean of rows; one training of one seed. No model
comes with the project: without the variables nothing is measured, and the skip says so. It takes half an hour.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import Batch, Direction, Window, supervised
from stages.sft.reweighting.diagnostics import rank_agreement
from stages.sft.reweighting.direction import norm
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.gibbs import weights_at_temperature, weights_within_kl
from stages.sft.reweighting.utility import Differences
from stages.sft.run import trainer_config
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.setup import prepare_torch
from tests.tiny import open_stage, write_spec

MODEL, ROWS, OUT = (os.environ.get(f"VCORE_BENCH_{name}", "") for name in ("MODEL", "ROWS", "OUT"))
pytestmark = [
    pytest.mark.skipif(
        not (MODEL and ROWS and OUT), reason="NOT MEASURED: VCORE_BENCH_MODEL, _ROWS and _OUT do not name all three"
    ),
    pytest.mark.timeout(0),
]
EVALUATED = 16
PROBES = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a probe; an eighth of a batch, the default, are two."""
POPULATION = 128
POINTS = (0, 8, 23)
"""Optimizer steps done when the utilities are measured."""
STEPS = 24
BEFORE = 4
"""Gradients of steps before that are kept."""
EPSILONS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TEMPERATURES = (1e3, 3e3, 1e4, 3e4, 1e5)
"""The paper's, and its formula multiplies utilities by them; its code divides by them."""
SETTINGS: dict[str, Any] = {
    "method": {"name": "uniform"},
    "max_steps": STEPS,
    "batch_size": 16,
    "micro_batch_size": 16,
    "max_length": 256,
    "learning_rate": 5e-4,
    "warmup_steps": 4,
    "adam_beta2": 0.98,
    "logging_steps": 1,
}
"""Those of configs/smollm2-methods-base.yaml, in float32."""


def agreement(one: Tensor, other: Tensor, mask: Tensor) -> float:
    found = rank_agreement(one, other, mask)
    return sum(found) / len(found)


class Watch(TrainerCallback):
    """Measures before some of the steps; what it finds is in `found`, by the number of steps done."""

    def __init__(self, held_out: Dataset, further: Dataset) -> None:
        self.held_out, self.further = held_out, further
        self.before: deque[Direction] = deque(maxlen=BEFORE)
        self.found: dict[int, dict[str, Any]] = {}
        self.along_population: dict[int, Tensor] = {}
        self.trainer: Any = None

    @property
    def evaluator(self) -> ModelEvaluator:
        evaluator: ModelEvaluator = self.trainer.evaluator
        return evaluator

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before.append(self.evaluator.training_gradient())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step not in POINTS and step - 1 != POINTS[1]:
            return
        started = time.perf_counter()
        batch = self.evaluator.model_inputs(self.evaluator.collate(list(self.held_out)))
        population = self._gradient(range(POPULATION))
        exact = self.evaluator.utilities(batch, population)
        self.along_population[step] = exact.cpu()
        if step in POINTS:
            self.found[step] = {
                "probes": self._probes(batch, exact),
                "had_anyway": self._had_anyway(batch, exact, population),
                "measurements": self._measurements(batch, step),
            }
        print(f"after {step} steps: {time.perf_counter() - started:.0f} s", self.found.get(step), flush=True)

    def _gradient(self, rows: range) -> Direction:
        """Sum of the gradients of these further rows."""
        some = [self.further[row] for row in rows]
        parts = [self.evaluator.collate(some[at : at + EVALUATED]) for at in range(0, len(some), EVALUATED)]
        return self.evaluator._summed_gradient(parts, 1.0)

    def _probes(self, batch: Batch, exact: Tensor) -> dict[int, dict[str, float]]:
        mask = supervised(batch)
        sides: list[dict[int, Tensor]] = []
        for side in range(2):
            start = POPULATION + side * PROBES[-1]
            rows, total, done, utilities = range(start, start + PROBES[-1]), None, 0, {}
            for size in PROBES:  # a prefix of rows each time, so that only one sum is held
                part = self._gradient(rows[done:size])
                total = part if total is None else [one.add_(other) for one, other in zip(total, part, strict=True)]
                done, utilities[size] = size, self.evaluator.utilities(batch, total)
            sides.append(utilities)
        one, other = sides
        return {
            size: {
                "of_two": agreement(one[size], other[size], mask),
                "with_population": sum(agreement(side[size], exact, mask) for side in sides) / 2,
            }
            for size in PROBES
        }

    def _had_anyway(self, batch: Batch, exact: Tensor, population: Direction) -> dict[str, float]:
        """Agreement of the utilities along directions that cost no probe with those along the population's."""
        if not self.before:
            return {}
        mask, evaluator = supervised(batch), self.evaluator
        state = self.trainer.optimizer.state
        directions = {
            "gradient of the step before": self.before[-1],
            f"mean gradient of {len(self.before)} steps": [sum(parts) for parts in zip(*self.before, strict=True)],
            "Adam's momentum": [state[parameter]["exp_avg"] for parameter in evaluator.parameters],
        }
        found = {name: agreement(evaluator.utilities(batch, each), exact, mask) for name, each in directions.items()}
        divided = evaluator.utilities(batch, evaluator.preconditioned(population))
        found["population, divided by Adam's root"] = agreement(divided, exact, mask)
        two = self._gradient(range(POPULATION, POPULATION + 2))
        for name, each in (("probe of two rows", two), ("Adam's momentum", directions["Adam's momentum"])):
            utilities = evaluator.utilities(batch, evaluator.preconditioned(each))
            found[f"{name}, both divided by Adam's root"] = agreement(utilities, divided, mask)
        return found

    def _measurements(self, batch: Batch, step: int) -> dict[str, Any]:
        """Agreement of measured utilities with exact ones of float32, along the default's direction: two rows, clipped
        to a norm of 1. And how sharp weights are at the temperatures of the paper, beside the default's budget."""
        evaluator, mask = self.evaluator, supervised(batch)
        tokens = int(supervised(evaluator.collate([self.further[row] for row in (0, 1)])).sum())
        direction = [part / tokens for part in self._gradient(range(2))]
        size = norm(direction)
        direction = [part * min(1.0, 1 / size) for part in direction]
        exact = evaluator.utilities(batch, direction)
        rows: dict[str, Any] = {"gradient_norm": size, "utility_rms": exact[mask].square().mean().sqrt().item()}
        for dtype in ("float32", "bfloat16"):
            evaluator.bfloat16 = dtype == "bfloat16"
            with torch.autocast("cpu", torch.bfloat16, enabled=evaluator.bfloat16):
                rows[f"{dtype} jvp"] = agreement(evaluator.utilities(batch, direction), exact, mask)
                for kind in ("finite_difference", "central_difference"):
                    for epsilon in (*EPSILONS, None):
                        rms = 0.3 if evaluator.bfloat16 else 0.03
                        of_step = {"epsilon": epsilon} if epsilon else {"target_rms": rms}
                        settings = VcoreSettings.model_validate({"name": "vcore", "utility": kind, **of_step})
                        measured = self._by_differences(settings, batch, direction, step)
                        rows[f"{dtype} {kind} {epsilon or 'steered'}"] = agreement(measured, exact, mask)
        evaluator.bfloat16 = False
        rows["budget"] = _sharpness(weights_within_kl(exact, mask, 0.05).q, mask)
        for temperature in TEMPERATURES:
            times, over = (weights_at_temperature(exact, mask, beta).q for beta in (temperature, 1 / temperature))
            rows[f"times {temperature:g}"] = _sharpness(times, mask)
            rows[f"over {temperature:g}"] = _sharpness(over, mask)
        return rows

    def _by_differences(self, settings: VcoreSettings, batch: Batch, direction: Direction, step: int) -> Tensor:
        measurement, mask = Differences(settings), supervised(batch)
        window = Window([batch], step, int(mask.sum()), len(mask))
        [prepared] = measurement.prepare(window, self.evaluator, direction, norm(direction))
        return measurement.utility(self.evaluator.losses(batch), mask, prepared)


def _sharpness(q: Tensor, mask: Tensor) -> dict[str, float]:
    """Means over rows: divergence from uniform in nats, effective share of tokens, weight of the heaviest token."""
    counts = mask.sum(-1).double()
    kl = torch.special.xlogy(q, q).sum(-1) + counts.log()
    return {
        "kl": kl.mean().item(),
        "ess": (1 / (q.square().sum(-1) * counts)).mean().item(),
        "heaviest": q.amax(-1).mean().item(),
    }


def test_utilities(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "run", "sft", SETTINGS, {}, threads=os.cpu_count() or 1)
    context = open_stage(SftSettings, spec)
    prepare_torch(context)
    model, tokenizer = load_model_and_tokenizer(Path(MODEL), "float32")
    rows = [json.loads(line) for line in Path(ROWS).read_text(encoding="utf-8").splitlines()]
    trainer = ReweightingTrainer(
        model=model,
        args=trainer_config(context),
        train_dataset=Dataset.from_list([{name: row[name] for name in ("prompt", "completion")} for row in rows]),
        processing_class=tokenizer,
        method=make_method(context.settings.method, tokenizer, context.seed),
    )
    trainer.snapshots.due = lambda step, steps: False  # type: ignore[method-assign]
    encoded, left = trainer.train_dataset, POPULATION + 2 * PROBES[-1] + EVALUATED
    assert len(encoded) > left, f"{len(encoded)} rows are not more than the {left} that are measured with"
    watch = Watch(encoded.select(range(EVALUATED)), encoded.select(range(EVALUATED, left)))
    trainer.train_dataset = encoded.select([*range(EVALUATED, len(encoded))])  # all but the rows that are evaluated
    watch.trainer = trainer
    trainer.add_callback(watch)
    trainer.train()
    mask = supervised(trainer.evaluator.collate(list(watch.held_out)))
    steps = sorted(watch.along_population)
    drift = {
        f"{one} and {other}": agreement(watch.along_population[one], watch.along_population[other], mask)
        for index, one in enumerate(steps)
        for other in steps[index + 1 :]
    }
    folder = Path(OUT)
    folder.mkdir(parents=True, exist_ok=True)
    found = {"points": watch.found, "drift": drift, "tokens": int(mask.sum()), "settings": SETTINGS}
    (folder / "utilities.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(json.loads(json.dumps(found)), folder / "utilities.png")


def draw(found: dict[str, Any], file: Path) -> None:
    """Three panels: probes, measurements, sharpness."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    for index, (step, point) in enumerate(found["points"].items()):
        sizes = [int(size) for size in point["probes"]]
        for name, style in (("with_population", "-"), ("of_two", ":")):
            values = [each[name] for each in point["probes"].values()]
            label = f"after {step} steps: {'with 128 rows' if style == '-' else 'of two probes'}"
            left.plot(sizes, values, style, color=f"C{index}", marker=".", label=label)
        for dtype, style in (("float32", "-"), ("bfloat16", ":")):
            for kind, marker in (("finite_difference", "."), ("central_difference", "x")):
                values = [point["measurements"][f"{dtype} {kind} {epsilon}"] for epsilon in EPSILONS]
                label = f"{dtype}, {kind.split('_')[0]}" if index == 0 else ""
                middle.plot(EPSILONS, values, style, color=f"C{index}", marker=marker, label=label)
        for way, style in (("times", "-"), ("over", ":")):
            values = [max(point["measurements"][f"{way} {t:g}"]["kl"], 1e-16) for t in TEMPERATURES]
            named = f"after {step} steps: utility {'x' if way == 'times' else '/'} tau"
            right.plot(TEMPERATURES, values, style, color=f"C{index}", marker=".", label=named)
    left.axhline(0.5, color="grey", linewidth=0.5)
    left.set(xscale="log", xlabel="rows of the probe", ylabel="rank correlation of utilities", title="Probe's noise")
    left.set_ylim(-1, 1.05)  # room for the legend
    middle.set(xscale="log", xlabel="step (epsilon), colours as left", title="Differences against exact utilities")
    right.axhline(0.05, color="grey", linewidth=0.5)
    right.set(xscale="log", yscale="log", xlabel="tau", ylabel="KL from uniform, nats", title="Sharpness of weights")
    for axes, place in ((left, "lower left"), (middle, "lower right"), (right, "center right")):
        axes.legend(fontsize=7, loc=place)
    figure.savefig(file, dpi=110)
    plt.close(figure)
