"""Where a GRPO step's time goes, at the demo's batch: weight synchronisation, rollouts, grading, loss, backward pass,
optimizer, the rest.

`pytest tests/performance/bench_grpo.py -o "python_files=bench_*.py" -s`. The stage's own code in a process of its own,
its parts timed where TRL and torch do them; the first two steps, which warm up, are left out. The trainer's
log-probabilities of what was sampled are a part of their own: they prove that vLLM holds the weights, and correct for
where it computes otherwise.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.stages.grpo.conftest import grpo_inputs
from tests.tiny import stage_environment, write_spec

STEPS, WARM_UP = 12, 2
SETTINGS = {
    "steps": STEPS,
    "prompts_per_step": 16,
    "num_generations": 8,
    "max_completion_length": 96,
    "learning_rate": 1e-5,
    "checkpoint_steps": 1000,
    "stop_check_prompts": 0,
}

__all__ = ["grpo_inputs"]


def measure(spec: Path) -> dict[str, Any]:
    """Run the stage with timers on its parts; seconds a step, by part."""
    from evaluation.engines import vllm_internals

    vllm_internals.prepare_environment(os.cpu_count() or 1)
    import accelerate
    import torch
    import trl
    from transformers import TrainerCallback
    from trl.generation.vllm_generation import VLLMGeneration

    from stages.grpo.settings import GrpoSettings
    from stages.grpo.train import train
    from tests.tiny import open_stage

    spent: dict[str, float] = defaultdict(float)
    ends: list[tuple[float, dict[str, float]]] = []

    inside: list[str] = []

    def timed(owner: Any, name: str, part: str) -> None:
        real = getattr(owner, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            inside.append(part)
            try:
                return real(*arguments, **options)
            finally:
                inside.pop()
                if not inside:  # within another part it is that part's time
                    spent[part] += time.perf_counter() - begun

        setattr(owner, name, wrapper)

    timed(VLLMGeneration, "sync_weights", "synchronise")
    timed(VLLMGeneration, "generate", "generate")
    timed(trl.GRPOTrainer, "_calculate_rewards", "grade")
    timed(trl.GRPOTrainer, "_get_per_token_logps_and_entropies", "trainer's log-probabilities")
    timed(trl.GRPOTrainer, "compute_loss", "loss")
    timed(accelerate.Accelerator, "backward", "backward")
    timed(torch.optim.AdamW, "step", "optimizer")

    class Ends(TrainerCallback):
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            ends.append((time.perf_counter(), dict(spent)))

    real_init = trl.GRPOTrainer.__init__

    def with_ends(self: Any, *arguments: Any, **options: Any) -> None:
        real_init(self, *arguments, **{**options, "callbacks": [*options["callbacks"], Ends()]})

    trl.GRPOTrainer.__init__ = with_ends
    train(open_stage(GrpoSettings, spec))
    steps = STEPS - WARM_UP
    (begun, before), (ended, after) = ends[WARM_UP - 1], ends[-1]
    return {
        "step": (ended - begun) / steps,
        "parts": {part: (after[part] - before.get(part, 0.0)) / steps for part in after},
    }


def test_parts_of_a_step(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "grpo", SETTINGS, grpo_inputs, threads=os.cpu_count() or 1)
    command = [sys.executable, "-m", "tests.performance.bench_grpo", str(spec)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=stage_environment())
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    step, parts = found["step"], found["parts"]
    print(f"\n  one step of 128 completions: {1000 * step:.0f} ms")
    for part, seconds in parts.items():
        print(f"  {part:<27} {1000 * seconds:>7.1f} ms {seconds / step:>6.1%}")
    together = sum(parts.values())
    rest = f"{1000 * (step - together):>7.1f} ms {1 - together / step:>6.1%}"
    print(f"  {'the rest':<27} {rest}; step / parts = {step / together:.2f}")


LENGTHS = {
    "8 to 248, evenly": [8 + 240 * number // 127 for number in range(128)],
    "32, one in ten 512": [512 if number % 10 == 0 else 32 for number in range(128)],
    "all 128": [128] * 128,
}


def train_on_lengths(
    folder: Path,
    base: Path,
    lengths: list[int],
    stock: bool,
    equal: int = 0,
    all_rows: bool = False,
    share: bool = False,
    size: int = 8,
    question: str = "Add 2 and",
) -> tuple[float, int]:
    """CPU seconds of a rollout's two optimizer steps on completions of these lengths, which cost nothing to sample, and
    the positions that the model computed. The first `equal` groups have equal rewards; with `all_rows` they go through
    the model all the same. Micro-batches are of `size` completions, which with `share` share their prompts."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from stages.grpo.trl_internals import StageTrainer
    from stages.training.checkpoint import load_model_and_tokenizer
    from tests.performance.bench_sft import Clock

    torch.set_num_threads(1)
    draw = random.Random(0)
    ids = [[draw.randrange(10, 250) for _ in range(length)] for length in draw.sample(lengths, len(lengths))]

    class Given(GRPOTrainer if stock else StageTrainer):  # type: ignore[misc]
        """Takes the completions above for those of its model."""

        def _generate(self, prompts: list[Any]) -> Any:
            asked = [self.processing_class(prompt[-1]["content"])["input_ids"] for prompt in prompts]
            return asked, ids, None, [[{"role": "assistant", "content": ""}]] * len(ids), None, {}, None, []

        def _trained_on(self, advantages: Any, mask: Any) -> Any:
            return list(range(len(mask))) if all_rows else super()._trained_on(advantages, mask)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [0.1 if row < 8 * equal else row % 2 for row, _ in enumerate(completion_ids)]

    model, tokenizer = load_model_and_tokenizer(base, "float32")
    positions: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    clock = Clock()
    arguments = GRPOConfig(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=64 // size,
        steps_per_generation=128 // size,  # two steps, so that TRL computes log-probabilities before the first
        num_generations=8,
        max_completion_length=512,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=100,
    )
    prompts = [[{"role": "user", "content": f"{question} {number}."}] for number in range(48)]
    options = {} if stock else {"share_prompts": share}
    Given(
        model=model,
        args=arguments,
        reward_funcs=[reward],
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
        callbacks=[clock],
        **options,
    ).train()
    return min(last - first for first, last in zip(clock.ends[1::2], clock.ends[3::2], strict=False)), sum(positions)


def test_completions_of_real_lengths(tmp_path: Path) -> None:
    """What a rollout trains on, beside TRL's own GRPOTrainer."""
    from tests.performance.bench_sft import make_model

    make_model(tmp_path / "base")
    for name, lengths in LENGTHS.items():
        seconds: dict[bool, list[float]] = {True: [], False: []}
        positions = {}
        for index in range(2):
            for stock in seconds:
                folder = tmp_path / f"{name}-{index}-{stock}"
                step, positions[stock] = train_on_lengths(folder, tmp_path / "base", lengths, stock)
                seconds[stock].append(step)
        ratio = min(seconds[False]) / min(seconds[True])
        print(f"\n  {name}: {positions[True]} positions by TRL, {positions[False]} here; time {ratio:.2f}")


def test_groups_of_equal_rewards(tmp_path: Path) -> None:
    """What is left of a rollout's training where some of its 16 groups have no advantage."""
    from tests.performance.bench_sft import make_model

    make_model(tmp_path / "base")
    for equal in (4, 8, 12):
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for index in range(2):
            for all_rows in seconds:
                folder = tmp_path / f"{equal}-{index}-{all_rows}"
                lengths = LENGTHS["8 to 248, evenly"]
                step, _ = train_on_lengths(folder, tmp_path / "base", lengths, False, equal, all_rows)
                seconds[all_rows].append(step)
        ratios = [one / other for one, other in zip(seconds[False], seconds[True], strict=True)]
        print(f"\n  {equal} of 16 groups equal: time {min(ratios):.2f} to {max(ratios):.2f} of all completions'")


def test_shared_prompts(tmp_path: Path) -> None:
    """A rollout's training where completions of a prompt go through the model in one row, beside rows of their own."""
    from tests.performance.bench_sft import make_model

    make_model(tmp_path / "base")
    for words, name in itertools.product((25, 100), ("all 20", *LENGTHS)):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        positions = {}
        lengths = [20] * 128 if name == "all 20" else LENGTHS[name]
        options: dict[str, Any] = {"size": 16, "question": "Add 2 and " * (words // 3)}
        for index in range(2):
            for share in seconds:
                folder = tmp_path / f"{words}-{name}-{index}-{share}"
                step, positions[share] = train_on_lengths(
                    folder, tmp_path / "base", lengths, False, share=share, **options
                )
                seconds[share].append(step)
        ratios = [one / other for one, other in zip(seconds[True], seconds[False], strict=True)]
        fewer = positions[True] / positions[False]
        times = f"time {min(ratios):.2f} to {max(ratios):.2f}"
        print(f"\n  prompts of {words} words, completions {name}: {times}, positions {fewer:.2f} of rows of their own")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
