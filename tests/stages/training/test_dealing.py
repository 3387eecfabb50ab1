"""The rows of one optimizer step are dealt to its micro-batches by length, and the step stays the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.harness.context import Context
from stages.sft import trainer
from stages.sft.reweighting.base import Batch, row_digests
from stages.sft.settings import SftSettings
from stages.sft.trainer import ReweightingTrainer, dealt_by_length
from stages.training.dealing import deal, deal_within
from tests.stages.sft.conftest import sft_context, sft_inputs
from tests.stages.sft.test_trainer import METHODS, train
from tests.tiny import tiny_demonstrations, write_jsonl

MakeContext = Callable[..., Context[SftSettings]]
PAD = 7

__all__ = ["sft_context", "sft_inputs"]


def micro_batches(*lengths: list[int], multiple: int = 1) -> list[Batch]:
    """Micro-batches of rows of these lengths, as TRL's collator pads them; the first half of a row is the prompt."""
    made = []
    for step, part in enumerate(lengths):
        width = -(-max(part) // multiple) * multiple
        present = torch.arange(width) < torch.tensor(part).unsqueeze(-1)
        ids = (torch.arange(width) + 100 * (1 + step)).expand(len(part), -1) + 1000 * torch.tensor(part).unsqueeze(-1)
        supervised = present & (torch.arange(width) >= torch.tensor(part).unsqueeze(-1) // 2)
        made.append(
            {
                "input_ids": ids.where(present, torch.tensor(PAD)),
                "labels": ids.where(supervised, torch.tensor(-100)),
                "attention_mask": present.long(),
            }
        )
    return made


def digests(batches: list[Batch]) -> list[str]:
    return sorted(digest for batch in batches for digest in row_digests(batch))


@pytest.mark.parametrize("multiple", [1, 8])
def test_rows_of_like_length_are_padded_together_and_none_is_lost(multiple: int) -> None:
    drawn = micro_batches([3, 50, 4], [51, 2, 49], [5, 4], multiple=multiple)
    dealt = dealt_by_length(drawn, PAD, multiple)
    lengths = [batch["attention_mask"].sum(-1).tolist() for batch in dealt]
    assert lengths == [[51, 50, 49], [5, 4, 4], [3, 2]]
    assert digests(dealt) == digests(drawn)
    assert [batch["labels"].shape[1] for batch in dealt] == ([51, 5, 3] if multiple == 1 else [56, 8, 8])
    for batch in dealt:
        padding = batch["attention_mask"] == 0
        assert (batch["input_ids"][padding] == PAD).all()
        assert (batch["labels"][padding] == -100).all()


@pytest.mark.parametrize(
    ("lengths", "dealt"),
    [
        ([(9, 2), (1, 8), (9, 7), (1, 3)], [([2, 0], (9, 7)), ([1, 3], (1, 8))]),  # by prompt
        ([(2, 1), (1, 99), (3, 90), (3, 2)], [([1, 2], (3, 99)), ([3, 0], (3, 2))]),  # by completion
        ([(4, 0), (4, 0), (2, 0)], [([0, 1], (4, 1)), ([2], (2, 1))]),  # completions masked out as a whole
    ],
)
def test_prompts_and_completions_are_dealt_so_that_the_fewest_positions_are_left(
    lengths: list[tuple[int, ...]], dealt: list[Any]
) -> None:
    assert deal(lengths, 2) == dealt


def test_a_budget_of_positions_decides_how_many_rows_go_together() -> None:
    lengths = [(3,), (50,), (4,), (51,), (2,), (49,), (5,), (120,)]
    assert deal_within(lengths, 110) == [([7], (120,)), ([3, 1], (51,)), ([5, 6], (49,)), ([2, 0, 4], (4,))]
    assert deal_within(lengths, 1) == [([row], lengths[row]) for row in (7, 3, 1, 5, 6, 2, 0, 4)]
    assert deal_within(lengths, 10_000) == deal(lengths, 8)
    assert deal_within(lengths, 112, multiple=8)[1] == ([3, 1], (56,))
    for rows, widths in deal_within([(number % 7, 300 // (number + 1)) for number in range(60)], 400):
        assert len(rows) * sum(widths) <= 400 or len(rows) == 1


def test_processes_cut_their_rows_alike() -> None:
    """The second has the longer rows: where it needs a cut, the first has one, too."""
    mine, other = [(5,), (4,), (3,), (2,)], [(30,), (20,), (3,), (2,)]
    dealt = [
        deal_within(own, 40, everyone=lambda rows, mate=mate: [rows, mate])
        for own, mate in ((mine, other), (other, mine))
    ]
    assert [[len(rows) for rows, _ in parts] for parts in dealt] == [[1, 2, 1]] * 2
    assert dealt[0] == [([0], (5,)), ([1, 2], (4,)), ([3], (2,))]


def test_a_step_of_one_micro_batch_stays_as_it_is() -> None:
    [drawn] = micro_batches([3, 9, 4])
    [dealt] = dealt_by_length([drawn], PAD)
    assert dealt is drawn


@pytest.fixture
def uneven(tmp_path: Path) -> dict[str, Path]:
    """Forty demonstrations of very different lengths."""
    rows = tiny_demonstrations(40)
    for number, row in enumerate(rows):
        row["completion"][0]["content"] += " so" * (90 if number % 5 == 0 else number % 7)
    write_jsonl(tmp_path / "data" / "sft.jsonl", rows)
    return {"data": tmp_path / "data"}


def gradients(context: Context[SftSettings]) -> tuple[list[torch.Tensor], int]:
    """The gradient of each optimizer step as one vector, and the positions that went through the model."""
    steps, positions = [], []

    class Watched(ReweightingTrainer):
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            positions.append(inputs["labels"].numel() if "labels" in inputs else 0)
            assert self.max_tokens is None or positions[-1] <= self.max_tokens
            loss = super().training_step(model, inputs, *args, **kwargs)
            if self.accelerator.sync_gradients:
                grads = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
                steps.append(torch.cat([grad.double().flatten() for grad in grads]))
            return loss

    train(context, Watched)
    return steps, sum(positions)


@pytest.mark.slow
@pytest.mark.parametrize("further", [{}, {"lora": {"rank": 2}, "completion_only_loss": False}], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_dealing_changes_no_steps_gradient_and_saves_padding(
    sft_context: MakeContext,
    uneven: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    further: dict[str, Any],
) -> None:
    """Forty rows by twelve in micro-batches of three; the last step has four."""
    settings: dict[str, Any] = {
        "batch_size": 12,
        "micro_batch_size": 3,
        "max_steps": None,
        "epochs": 1.0,
        "learning_rate": 1e-6,
    }
    settings |= {"method": METHODS[name], "max_grad_norm": 1e9, "max_length": 256, **further}
    settings["trainer"] = {"optim": "sgd"}  # Adam's moments would amplify rounding
    dealt, fewer = gradients(sft_context("dealt", uneven, **settings))
    monkeypatch.setattr(trainer, "dealt_by_length", lambda batches, *_, **__: batches)
    drawn, more = gradients(sft_context("drawn", uneven, **settings))
    # Differences of losses divide their rounding by a small step; all else is exact.
    bound = 1e-4 if name.startswith("vcore") and name != "vcore_jvp" else 1e-6
    assert len(dealt) == len(drawn) == 4
    assert max(float((one - other).norm() / other.norm()) for one, other in zip(dealt, drawn, strict=True)) < bound
    assert fewer < 0.9 * more


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "vcore", "random"])
def test_a_budget_of_tokens_changes_no_steps_gradient(
    sft_context: MakeContext, uneven: dict[str, Path], name: str
) -> None:
    settings: dict[str, Any] = {"batch_size": 12, "max_steps": None, "epochs": 1.0, "learning_rate": 1e-6}
    settings |= {"method": METHODS[name], "max_grad_norm": 1e9, "max_length": 256, "trainer": {"optim": "sgd"}}
    within, fewer = gradients(sft_context("within", uneven, max_tokens_per_micro_batch=600, **settings))
    whole, more = gradients(sft_context("whole", uneven, **settings))
    bound = 1e-4 if name == "vcore" else 1e-6
    assert len(within) == len(whole) == 4
    assert max(float((one - other).norm() / other.norm()) for one, other in zip(within, whole, strict=True)) < bound
    assert fewer < 0.6 * more
