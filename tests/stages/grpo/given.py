"""Optimizer steps of GRPO on completions that are given, with the gradient of each; as a program, in two processes.

`torchrun --nproc-per-node=2 -m tests.stages.grpo.given FOLDER OPTIONS.json` writes them to `FOLDER/RANK.pt`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig

from stages.grpo.trl_internals import StageTrainer
from stages.training import distributed
from stages.training.checkpoint import load_model_and_tokenizer

GROUP = 4
COMPLETIONS = [number % 13 + 2 for number in range(0, 160, 5)]
"""Lengths of 32 completions: eight groups, two optimizer steps."""
EQUAL = (0, 2, 3, 6)
"""Groups of these numbers have equal rewards."""


class Gradients(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradient of each optimizer step as one vector; of parameters without one, zeros."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad]
        self.steps.append(torch.cat([gradient.double().flatten() for gradient in gradients]))


class Given(StageTrainer):
    """Takes given completions for those of its model, or of a vLLM whose log-probabilities are not quite the same."""

    def __init__(self, *args: Any, all_rows: bool = False, sampler: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.all_rows, self.use_vllm = all_rows, sampler
        self.positions = self.largest = self.rows = self.passes = self.rows_without_gradient = 0

        def count(module: Any, arguments: Any, options: Any) -> None:
            if torch.is_grad_enabled():
                self.positions += options["input_ids"].numel()
                self.largest = max(self.largest, options["input_ids"].numel())
                self.rows += len(options["input_ids"])
                self.passes += 1
            else:
                self.rows_without_gradient += len(options["input_ids"])

        self.accelerator.unwrap_model(self.model).register_forward_pre_hook(count, with_kwargs=True)

    def _generate(self, prompts: list[Any]) -> Any:
        ids = distributed.share(completions(len(prompts) * distributed.world_size()))
        asked = [self.processing_class(prompt[-1]["content"])["input_ids"] for prompt in prompts]
        if self.use_vllm:
            draw = random.Random(7)
            told = [[None if token % 17 == 0 else draw.uniform(-6.2, -5.3) for token in row] for row in ids]
            return asked, ids, None, [[{"role": "assistant", "content": ""}]] * len(ids), told, {}, None, []
        return asked, ids, None, [[{"role": "assistant", "content": ""}]] * len(ids), None, {}, None, []

    def _trained_on(self, advantages: torch.Tensor, mask: torch.Tensor) -> list[int]:
        return list(range(len(mask))) if self.all_rows else super()._trained_on(advantages, mask)


def completions(count: int) -> list[list[int]]:
    """Random tokens; all but every fifth end with the end token."""
    draw, end = random.Random(5), 2
    drawn = [[draw.randrange(10, 250) for _ in range(length)] for length in COMPLETIONS[:count]]
    return [ids if number % 5 == 0 else [*ids, end] for number, ids in enumerate(drawn)]


def steps(
    folder: Path,
    equal: tuple[int, ...] = EQUAL,
    all_rows: bool = False,
    sampler: bool = False,
    max_tokens: int | None = None,
    **options: Any,
) -> Given:
    """Train on one rollout in float64; the trainer, whose callback `seen` has the gradients.

    Args:
        folder: with a checkpoint in `model`.
        equal: numbers of the groups whose completions have the same reward.
        all_rows: whether all completions go through the model, as in TRL.
        sampler: whether the completions are vLLM's.
        max_tokens: of a micro-batch, instead of four completions.
        options: of GRPOConfig, and `peft_config`.
    """
    position = {tuple(ids): number for number, ids in enumerate(completions(len(COMPLETIONS)))}

    def reward(completion_ids: Any, **_: Any) -> list[float]:
        numbers = [position[tuple(ids)] for ids in completion_ids]
        return [0.1 if number // GROUP in equal else float(number % GROUP) for number in numbers]

    processes, peft_config = distributed.world_size(), options.pop("peft_config", None)
    model, tokenizer = load_model_and_tokenizer(folder / "model", "float32")
    size = 1 if max_tokens else 4
    values = {
        "output_dir": str(folder / "out"),
        "max_steps": 2,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": 16 // size // processes,
        "steps_per_generation": 32 // size // processes,
        "num_generations": GROUP,
        "max_completion_length": 20,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "max_grad_norm": 1e9,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **options,
    }
    trainer = Given(
        model=model.double(),
        args=GRPOConfig(**values),
        reward_funcs=[reward],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "2+2?"}]}] * len(COMPLETIONS)),
        processing_class=tokenizer,
        all_rows=all_rows,
        sampler=sampler,
        max_tokens=max_tokens,
        peft_config=peft_config,
    )
    trainer.seen = Gradients()
    trainer.add_callback(trainer.seen)
    trainer.train()
    return trainer


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    here = Path(sys.argv[1])
    trained = steps(here, **json.loads(sys.argv[2]))
    found = {"gradients": trained.seen.steps, "rows": trained.rows, "passes": trained.passes}
    torch.save(found, here / f"{distributed.rank()}.pt")
