"""A whole GRPO step beside TRL's own GRPOTrainer: vLLM samples completions of given lengths; the step trains on them.

`pytest tests/performance/bench_grpo_step.py -o "python_files=bench_*.py" -s`. CPU time of the process on one thread.
Each trainer has a process of its own, in turn with the other, and both have the same engine, prompts, rewards and
micro-batches: what differs is what StageTrainer adds to GRPOTrainer. VCORE_BENCH_OUT: a folder for a drawing of it.
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

import pytest

from tests.performance.bench_grpo import LENGTHS
from tests.tiny import stage_environment, write_spec

STEPS, WARM_UP, ROUNDS, COMPLETIONS = 3, 1, 2, 128
TRAINERS: dict[str, dict[str, Any]] = {
    "TRL": {},
    "ours": {"share_prompts": False},
    "ours, shared prompts": {"share_prompts": True},
}
QUESTION = "Add 2 and " * 8


def measure(folder: Path, base: Path, trainer: str, lengths: list[int]) -> dict[str, float]:
    """CPU seconds of a step, and of all of it but the sampling: each the least of the steps after the first."""
    from evaluation.engines import vllm_internals

    vllm_internals.prepare_environment(1)
    import torch
    import trl.generation.vllm_generation as vllm_generation
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from stages.grpo.settings import GrpoSettings
    from stages.grpo.trl_internals import StageTrainer, configure_engine
    from stages.training.checkpoint import load_model_and_tokenizer
    from tests.tiny import open_stage

    torch.set_num_threads(1)
    shuffled = random.Random(0).sample(lengths, len(lengths))
    settings = {"steps": STEPS, "prompts_per_step": 16, "num_generations": 8}
    configure_engine(open_stage(GrpoSettings, write_spec(folder / "spec", "grpo", settings, {}, threads=1)))
    sampling, ends, spent = [0.0], [], []

    class OfLengths(vllm_generation.LLM.func):
        """Samples as many tokens of each completion as it is told, whatever they are."""

        def generate(self, prompts: Any, sampling_params: Any, **options: Any) -> Any:
            begun = time.process_time()
            each = []
            for length in shuffled:
                each.append(sampling_params.clone())
                each[-1].max_tokens, each[-1].ignore_eos = length, True
            answers = super().generate(prompts, sampling_params=each, **options)
            sampling[0] += time.process_time() - begun
            return answers

    arguments = vllm_generation.LLM.keywords
    vllm_generation.LLM = lambda *args, **options: OfLengths(*args, **{**options, **arguments})

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.process_time())
            spent.append(sampling[0])

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(row % 2) for row, _ in enumerate(completion_ids)]

    model, tokenizer = load_model_and_tokenizer(base, "float32")
    options = GRPOConfig(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=COMPLETIONS // 8,
        num_generations=8,
        max_completion_length=512,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=1024,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=100,
    )
    rows = [{"prompt": [{"role": "user", "content": f"{QUESTION}{number}."}]} for number in range(16 * STEPS)]
    stock = trainer == "TRL"
    (GRPOTrainer if stock else StageTrainer)(
        model=model,
        args=options,
        reward_funcs=[reward],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Ends()],
        **TRAINERS[trainer],
    ).train()
    steps = range(WARM_UP, STEPS)
    return {
        "step": min(ends[step] - ends[step - 1] for step in steps),
        "train": min(ends[step] - ends[step - 1] - (spent[step] - spent[step - 1]) for step in steps),
    }


@pytest.mark.timeout(0)
def test_whole_step(tmp_path: Path) -> None:
    """The training part and the whole of a step on 128 completions, over TRL's."""
    from tests.performance.bench_sft import make_model

    make_model(tmp_path / "base")
    first: dict[str, dict[str, dict[str, float]]] = {}
    for number, (name, lengths) in enumerate(LENGTHS.items()):
        found: dict[str, list[dict[str, float]]] = {trainer: [] for trainer in TRAINERS}
        for index in range(ROUNDS):
            for trainer in TRAINERS:
                folder = tmp_path / f"{number}-{index}-{trainer.replace(' ', '-')}"
                asked = json.dumps([str(folder), str(tmp_path / "base"), trainer, lengths])
                command = [sys.executable, "-m", "tests.performance.bench_grpo_step", asked]
                answer = subprocess.run(command, capture_output=True, text=True, timeout=3600, env=stage_environment())
                assert answer.returncode == 0, answer.stderr
                found[trainer].append(json.loads(answer.stdout.splitlines()[-1]))
        print(
            f"\n  {name}: TRL's step {found['TRL'][0]['step']:.1f} s, of it training {found['TRL'][0]['train']:.1f} s"
        )
        first[name] = {trainer: runs[0] for trainer, runs in found.items()}
        for trainer in list(TRAINERS)[1:]:
            for part in ("train", "step"):
                ratios = [one[part] / other[part] for one, other in zip(found[trainer], found["TRL"], strict=True)]
                print(f"  {trainer}: {part} {min(ratios):.2f} to {max(ratios):.2f}")
    if folder_of_drawing := os.environ.get("VCORE_BENCH_OUT"):
        draw(first, Path(folder_of_drawing, "grpo-step.png"))


def draw(measured: dict[str, dict[str, dict[str, float]]], file: Path) -> None:
    """A bar for each trainer and set of lengths: a step's sampling and training, over the whole of TRL's step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    labels: list[str] = []
    for name, trainers in measured.items():
        whole = trainers["TRL"]["step"]
        for trainer, seconds in trainers.items():
            sampling, place = (seconds["step"] - seconds["train"]) / whole, len(labels)
            axes.barh(place, sampling, color="#8a8f98", label=None if labels else "sampling")
            rest = seconds["train"] / whole
            axes.barh(place, rest, left=sampling, color="#2f81f7", label=None if labels else "training and all else")
            axes.text(sampling + rest + 0.01, place, f"{seconds['step'] / whole:.2f}", va="center", fontsize=8)
            labels.append(f"{name}: {trainer}")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("processor time of a step of 128 completions, TRL's = 1")
    figure.legend(fontsize=8, loc="outside upper right", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    where, base_model, which, given = json.loads(sys.argv[1])
    print(json.dumps(measure(Path(where), Path(base_model), which, given)))
