"""An optimizer step is the same however its completions are cut into micro-batches, and as in TRL's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from stages.grpo import checks
from stages.grpo.rewards import Rewards, make_grader, make_reader
from stages.grpo.rollout import GrpoCallback
from stages.grpo.settings import GrpoSettings
from stages.grpo.train import _make_trainer
from stages.grpo.trl_internals import whole_step
from stages.training import setup
from tests.tiny import open_stage, write_spec

STEP: dict[str, Any] = {
    "rollout": "transformers",
    "steps": 2,
    "prompts_per_step": 4,
    "num_generations": 4,
    "mini_batches": 2,
    "max_completion_length": 24,
    "temperature": 1.3,
    "learning_rate": 1e-3,
    "max_grad_norm": 1e9,
    "beta": 0.05,
    "rewards": {"overlong": 0.5, "overlong_buffer": 20},
}
LOSSES: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name} for name in ("dapo", "grpo", "bnpo", "dr_grpo", "sapo", "vespo")},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "cispo, by sequence": {
        "loss_type": "cispo",
        "epsilon_high": 5.0,
        "importance_sampling_level": "sequence",
        "beta": 0.0,
    },
    "sapo, adapter": {"loss_type": "sapo", "lora": {"rank": 4}, "beta": 0.1},
    "gspo, adapter": {
        "loss_type": "dr_grpo",
        "importance_sampling_level": "sequence",
        "lora": {"rank": 4},
        "beta": 0.0,
    },
    "bnpo, reused": {"loss_type": "bnpo", "num_iterations": 2, "steps": 4},
    "bnpo, truncated left out": {"loss_type": "bnpo", "mask_truncated_completions": True},
    "quantile": {"top_entropy_quantile": 0.3},
    "quantile of bnpo": {"top_entropy_quantile": 0.5, "loss_type": "bnpo"},
    "bonus": {"entropy_coef": 0.3},
    "bonus on the quantile": {"entropy_coef": 0.3, "top_entropy_quantile": 0.4, "loss_type": "grpo"},
    "adaptive bonus": {"entropy_coef": 0.2, "trainer": {"use_adaptive_entropy": True, "entropy_target": 6.0}},
    "adaptive bonus, off": {"entropy_coef": 0.2, "trainer": {"use_adaptive_entropy": True, "entropy_target": 0.01}},
}


class Gradients(TrainerCallback):  # type: ignore[misc]
    """Keeps what each optimizer step sees: the gradient of all parameters, as one vector."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.steps.append(
            torch.cat(
                [parameter.grad.double().flatten() for parameter in model.parameters() if parameter.requires_grad]
            )
        )


def gradients(
    inputs: dict[str, Path], folder: Path, micro_batch_size: int | None, **settings: Any
) -> tuple[list[Any], int]:
    """The gradient and the loss of each step of a short run, and the positions that training put through the model."""
    values = {**STEP, **settings, "micro_batch_size": micro_batch_size}
    values["trainer"] = {"optim": "sgd", **values.get("trainer", {})}
    ctx = open_stage(GrpoSettings, write_spec(folder, "grpo", values, inputs, seed=3))
    setup.prepare_torch(ctx)
    start = checks.checked_start(ctx)
    start.model.double()  # in float32 rounding alone is that much
    seen, positions, made = Gradients(), list[int](), list[Any]()

    def comparing() -> bool:
        """Whether shared prompts are still to be compared with rows of their own, in passes that serve nothing else."""
        return not torch.is_grad_enabled() and any(t._shares and not t._shared_checked for t in made)

    start.model.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(
            kwargs["input_ids"].numel() if kwargs.keys() & {"labels", "shift_labels"} and not comparing() else 0
        ),
        with_kwargs=True,
    )
    with make_grader(ctx.settings) as grader:
        rewards = Rewards(start.problems, grader, make_reader(start.tokenizer, start.eos_token_ids))
        trainer = _make_trainer(ctx, start, rewards, GrpoCallback(ctx, rewards))
        made.append(trainer)
        trainer.add_callback(seen)
        setup.prepare_torch(ctx)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return list(zip(seen.steps, losses, strict=True)), sum(positions)


def in_trls_order(lengths: list[Any], size: int, multiple: int | None) -> list[Any]:
    """Micro-batches as TRL has them: completions as they come, all padded to the longest."""
    widths = [max(part) for part in zip(*lengths, strict=True)]
    return [(list(range(first, first + size)), widths) for first in range(0, len(lengths), size)]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_change_no_step(
    grpo_inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(whole_step, "deal", in_trls_order)
        whole, positions = gradients(grpo_inputs, tmp_path / "whole", None, **LOSSES[name])
    if "top_entropy_quantile" in LOSSES[name]:  # with micro-batches, a pass before the step finds its threshold
        positions *= 2
    for size in (4, 1):
        split, fewer = gradients(grpo_inputs, tmp_path / str(size), size, **LOSSES[name])
        assert 0 < fewer < positions
        positions = fewer
        for (one, loss), (other, other_loss) in zip(whole, split, strict=True):
            assert one.norm() > 1e-3
            assert (one - other).norm() <= 1e-6 * one.norm()
            assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_a_process_whose_completions_share_nothing_compares_nothing(
    grpo_inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes what the others compare, since a forward pass may be one of all processes."""
    gather = whole_step.distributed.gather
    monkeypatch.setattr(
        whole_step.distributed, "gather", lambda value: [False, True] if value is False else gather(value)
    )
    gradients(grpo_inputs, tmp_path, 1, **LOSSES["dapo"], share_prompts=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_shared_prompts_change_no_step(grpo_inputs: dict[str, Path], tmp_path: Path, name: str) -> None:
    whole, positions = gradients(grpo_inputs, tmp_path / "alone", 4, **LOSSES[name])
    for size in (8, 2):  # two groups, and half of one
        shared, fewer = gradients(grpo_inputs, tmp_path / str(size), size, **LOSSES[name], share_prompts=True)
        assert 0 < fewer < positions
        for (one, loss), (other, other_loss) in zip(whole, shared, strict=True):
            assert one.norm() > 1e-3
            assert (one - other).norm() <= 1e-6 * one.norm()
            assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
