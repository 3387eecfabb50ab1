"""What stands beside a row reaches its loss: however rows are dealt, and whatever the method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from stages.harness.context import Context, StageError, StageStopped
from stages.sft import run as sft
from stages.sft.objective_settings import WitSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import Window
from stages.sft.settings import SftSettings
from stages.training.checkpoint import load_model_and_tokenizer
from tests.stages.sft.test_train import content
from tests.stages.sft.test_trainer import assert_identical, losses, train, weights
from tests.tiny import read_stage_run, tiny_demonstrations, write_jsonl

MakeContext = Callable[..., Context[SftSettings]]
# So long a step that what it moves is not lost in the rounding of the weights.
ONE_STEP = {"max_steps": 1, "learning_rate": 100.0, "max_grad_norm": 1e9, "trainer": {"optim": "sgd"}}
WEIGHTS = (0.0, 0.5, 1.0, 3.0)


def data(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    write_jsonl(folder / "sft.jsonl", rows)
    return {"data": folder}


def weighted_rows(count: int = 8) -> list[dict[str, Any]]:
    """Demonstrations of different lengths, every fourth of weight 0."""
    return [{**row, "weight": WEIGHTS[index % 4]} for index, row in enumerate(tiny_demonstrations(count))]


def naive_gradient(context: Context[SftSettings], trainer: Any, of_loss: Callable[[Any], Any]) -> dict[str, Any]:
    """Of the weighted losses of all rows over all tokens, row by row, at the start."""
    model, _ = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    tokens = 0
    for row in trainer.train_dataset:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        loss = cross_entropy(model(input_ids=ids).logits[0, :-1], labels, reduction="none")  # 0 where unlabelled
        (row["weight"] * (of_loss(loss.detach()) * loss).sum()).backward()
        tokens += int((labels != -100).sum())
    return {name: parameter.grad / tokens for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("cut", [{}, {"micro_batch_size": 2}, {"max_tokens_per_micro_batch": 150}])
@pytest.mark.parametrize(
    ("method", "of_loss"),
    [
        ({"name": "uniform"}, torch.ones_like),
        ({"name": "dft"}, lambda loss: torch.exp(-loss)),
        ({"name": "asft"}, lambda loss: torch.exp(-loss)),  # in the first step the divergence is 0
    ],
    ids=["uniform", "dft", "asft"],
)
def test_a_rows_weight_multiplies_its_loss_and_the_denominator_stays(
    sft_context: MakeContext, tmp_path: Path, method: Any, of_loss: Any, cut: dict[str, Any]
) -> None:
    context = sft_context(inputs=data(tmp_path / "data", weighted_rows()), method=method, **cut, **ONE_STEP)
    start = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")[0].state_dict()
    trainer = train(context)
    moved = weights(trainer)
    for name, gradient in naive_gradient(context, trainer, of_loss).items():
        step = (start[name] - moved[name]) / 100
        assert (step - gradient).norm() <= 1e-3 * gradient.norm(), name
    assert losses(trainer, "weighted_loss") == pytest.approx(losses(trainer), rel=1e-5)
    assert losses(trainer, "uniform_loss") != pytest.approx(losses(trainer), rel=0.01)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "asft", "kl_weight": 5.0},
        {"name": "iw_sft"},
        {"name": "prift"},
        {"name": "eaft"},
        {"name": "noise"},
    ],
    ids=lambda method: method["name"],
)
def test_a_row_of_weight_zero_teaches_nothing(sft_context: MakeContext, tmp_path: Path, method: Any) -> None:
    """Every other row is of weight 0, and answers otherwise in the second run: as long, and so in the same place. (Not
    so with `random`, which counts the tokens that are kept, nor with `vcore`, whose factor is of all trajectories.)"""
    rows = [{**row, "weight": float(index % 2)} for index, row in enumerate(tiny_demonstrations(8))]
    other = copy.deepcopy(rows)
    for row in other[::2]:
        row["completion"][0]["content"] = row["completion"][0]["content"].replace("=", "+")
    assert rows != other
    settings = {"method": method, "micro_batch_size": 2, "max_steps": 4, "learning_rate": 0.5}
    ours, theirs = (
        train(sft_context(name, inputs=data(tmp_path / name, some), trainer={"optim": "sgd"}, **settings))
        for name, some in (("ours", rows), ("theirs", other))
    )
    assert_identical(weights(ours), weights(theirs))
    assert losses(ours, "uniform_loss") != losses(theirs, "uniform_loss")


@pytest.mark.parametrize("weight", [None, 1.0])
def test_weights_of_one_change_nothing(sft_context: MakeContext, tmp_path: Path, weight: float | None) -> None:
    rows = [{**row, **({} if weight is None else {"weight": weight})} for row in tiny_demonstrations(40)]
    plain = weights(train(sft_context("plain", micro_batch_size=4)))
    ours = weights(train(sft_context("ours", inputs=data(tmp_path / "data", rows), micro_batch_size=4)))
    assert_identical(plain, ours)


def test_vcores_probe_is_the_gradient_of_the_weighted_loss(sft_context: MakeContext, tmp_path: Path) -> None:
    context = sft_context(inputs=data(tmp_path / "data", weighted_rows()), **{**ONE_STEP, "learning_rate": 1e-30})
    trainer = train(context)
    probe = trainer.evaluator.probe_gradient(1.0, 0)  # all eight rows
    for part, gradient in zip(probe, naive_gradient(context, trainer, torch.ones_like).values(), strict=True):
        assert (part - gradient).norm() <= 1e-4 * gradient.norm()


def test_rows_without_a_weight_count_as_one_and_the_run_says_so(sft_context: MakeContext, tmp_path: Path) -> None:
    rows = tiny_demonstrations(8)
    rows[3] |= {"weight": 3.0}
    context = sft_context(inputs=data(tmp_path / "data", rows))
    sft.run(context)
    notes = read_stage_run(context.spec_path.parent, 0, "").notes
    assert any(note.startswith("rows are weighted, from 1 to 3, 1.25 on average") for note in notes)


def test_what_is_no_weight_and_weights_that_are_all_zero_are_refused(sft_context: MakeContext, tmp_path: Path) -> None:
    rows = tiny_demonstrations(8)
    rows[4] |= {"weight": -1}
    with pytest.raises(StageError, match=r"sft.jsonl:5: a weight is a number of at least 0, not -1"):
        sft.run(sft_context("negative", inputs=data(tmp_path / "negative", rows)))
    rows = [{**row, "weight": 0.0} for row in rows]
    rows[4]["weight"] = 1.0
    rows[4]["prompt"][0]["content"] = "coins " * 200  # left out: its completion lies beyond max_length
    with pytest.raises(StageError, match="all 7 rows have the weight 0"):
        sft.run(sft_context("zero", inputs=data(tmp_path / "zero", rows)))


def test_wit_on_a_worked_example() -> None:
    """Five tokens, three of them the prompt's; the first is predicted by nothing. Losses 1, 2 of the prompt and 3, 4 of
    the answer: (0.4 * 3 + 0.6 * 7) / 4 = 1.35."""
    tokens = torch.arange(5).unsqueeze(0)
    batch = {"input_ids": tokens, "labels": tokens, "prompt_tokens": torch.tensor([3])}
    method = make_method(WitSettings(), None, 0)
    each = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    asked: Any = None  # it asks no model for anything
    [prepared] = method.prepare(Window([batch], 0, 4, 1), asked)
    factors = method.weigh(each, torch.ones_like(each, dtype=torch.bool), prepared)
    assert factors is not None
    assert factors.tolist() == [pytest.approx([0.4, 0.4, 0.6, 0.6])]
    assert float((factors * each).sum() / 4) == pytest.approx(1.35)


@pytest.mark.parametrize("cut", [{}, {"max_tokens_per_micro_batch": 150}])
def test_wit_weighs_prompts_and_answers_over_the_number_of_both(
    sft_context: MakeContext, tmp_path: Path, cut: dict[str, Any]
) -> None:
    method = {"name": "wit", "prompt_weight": 0.25, "response_weight": 1.5}
    context = sft_context(inputs=data(tmp_path / "data", weighted_rows()), method=method, **cut, **ONE_STEP)
    trainer = train(context)
    start, _ = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    before = {name: parameter.detach().clone() for name, parameter in start.named_parameters()}
    tokens = 0
    for row in trainer.train_dataset:
        ids = torch.tensor([row["input_ids"]])
        loss = cross_entropy(start(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        answer = row["prompt_tokens"] - 1  # where its first token is predicted
        assert 0 < answer < len(loss)
        (row["weight"] * (0.25 * loss[:answer].sum() + 1.5 * loss[answer:].sum())).backward()
        tokens += len(loss)
    moved = weights(trainer)
    for name, parameter in start.named_parameters():
        assert parameter.grad is not None
        step, gradient = (before[name] - moved[name]) / 100, parameter.grad / tokens
        assert (step - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_the_report_shows_the_answers_weights_where_prompts_have_some(sft_context: MakeContext, tmp_path: Path) -> None:
    trainer = train(sft_context(inputs=data(tmp_path / "data", weighted_rows()), method={"name": "wit"}, **ONE_STEP))
    for row, shown in zip(trainer.train_dataset, trainer.snapshots.taken[0]["rows"], strict=False):
        assert len(shown["tokens"]) == len(row["input_ids"]) - row["prompt_tokens"]
        assert set(shown["weights"]) == {0.6}
        assert shown["prompt"]


@pytest.mark.parametrize("prompt_weight", [0.0, 1.0])
def test_wit_of_weights_zero_or_one_is_plain_sft(sft_context: MakeContext, prompt_weight: float) -> None:
    method = {"name": "wit", "prompt_weight": prompt_weight, "response_weight": 1.0}
    ours = weights(train(sft_context("ours", method=method, micro_batch_size=4)))
    plain = {"method": {"name": "uniform"}, "completion_only_loss": not prompt_weight, "micro_batch_size": 4}
    assert_identical(ours, weights(train(sft_context("plain", **plain))))


@pytest.mark.slow
def test_a_stopped_run_with_weights_ends_in_the_same_bytes(
    sft_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"max_steps": 8, "checkpoint_steps": 3, "method": {"name": "wit"}}
    settings |= {"inputs": data(tmp_path / "data", weighted_rows(40)), "max_tokens_per_micro_batch": 300}
    straight = sft_context("straight", **settings)
    sft.run(straight)
    stopped = sft_context("stopped", **settings)
    original = stopped.curve

    def stop_at_five(step: int, **values: float) -> None:
        original(step, **values)
        stopped.stop_requested = step >= 5

    monkeypatch.setattr(stopped, "curve", stop_at_five)
    with pytest.raises(StageStopped):
        sft.run(stopped)
    again = sft_context("stopped", **settings)
    assert again.resuming
    sft.run(again)
    assert content(again.output) == content(straight.output)
