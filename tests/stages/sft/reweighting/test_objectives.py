"""Objectives that weigh by what the head says: each formula on a worked example, the signals on whole logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from stages.harness.context import Context, StageError
from stages.sft.encoding import read_demonstrations
from stages.sft.objective_settings import DeftSettings, EaftSettings, PriFtSettings, ProFitSettings, TrimSftSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import SIGNALS, Method, Window, row_digests, supervised
from stages.sft.settings import SftSettings
from stages.sft.trl_internals import HeadSignals
from stages.training.checkpoint import load_model_and_tokenizer
from tests.stages.sft.reweighting.test_methods import BATCH, MASK, WINDOW
from tests.stages.sft.test_trainer import train
from tests.tiny import make_tiny_tokenizer

MakeContext = Callable[..., Context[SftSettings]]
P = torch.tensor([0.5, 0.3, 0.2])
"""A vocabulary of three."""


def weigh(settings: Any, losses: list[float], **signals: list[float]) -> list[float]:
    """Weights of one row whose tokens have these losses and signals."""
    method = make_method(settings, make_tiny_tokenizer(), 0)
    values = torch.tensor([losses])
    prepared = {name: torch.tensor([value]) for name, value in signals.items()}
    factors = method.weigh(values, torch.ones_like(values, dtype=torch.bool), prepared)
    assert factors is not None
    return [float(value) for value in factors[0]]


def test_eaft_weighs_by_the_entropy_of_twenty_tokens_over_its_most() -> None:
    entropies = [0.0, math.log(20) / 2, math.log(20)]
    assert weigh(EaftSettings(), [1.0, 1.0, 1.0], top_entropy=entropies) == pytest.approx([0.0, 0.5, 1.0])
    assert weigh(EaftSettings(alpha=2.0), [1.0], top_entropy=[math.log(20) / 2]) == pytest.approx([0.25])


def test_profit_leaves_out_tokens_below_its_probability() -> None:
    losses = [-math.log(p) for p in (0.09, 0.11, 0.9)]
    assert weigh(ProFitSettings(threshold=0.1), losses) == [0.0, 1.0, 1.0]


def test_deft_has_the_gradient_of_its_own_loss() -> None:
    concentration = float(P.square().sum())
    assert concentration == pytest.approx(0.38)
    assert weigh(DeftSettings(), [-math.log(0.3)], concentration=[0.38]) == pytest.approx([0.3**0.38])
    logits = P.log().requires_grad_()
    p = logits.softmax(-1)
    ((1 - p[1] ** concentration) / concentration).backward()
    own = logits.grad
    cross_entropy = torch.autograd.grad(-logits.log_softmax(-1)[1], logits)[0]
    assert own is not None
    assert torch.allclose(own, 0.3**0.38 * cross_entropy, atol=1e-6)


def test_trim_sft_weighs_by_a_gaussian_of_the_gap() -> None:
    gaps = [1.5, 1.5 + 0.8, 1.5 - 1.6, 8.0]
    expected = [1.0, math.exp(-0.5), math.exp(-2.0), math.exp(-((6.5 / 0.8) ** 2) / 2)]
    assert weigh(TrimSftSettings(), [1.0] * 4, logit_gap=gaps) == pytest.approx(expected)


class InitialModel:
    """Its losses, for PriFT."""

    def losses_of_all_rows(self) -> dict[str, torch.Tensor]:
        lengths = MASK.sum(-1).tolist()
        losses = [torch.arange(1.0, 1.0 + length) for length in lengths]
        return dict(zip(row_digests(BATCH), losses, strict=True))


def test_prift_weighs_by_the_probability_under_the_initial_model_also_after_a_resume() -> None:
    method = make_method(PriFtSettings(), make_tiny_tokenizer(), 0)
    [prepared] = method.prepare(WINDOW, InitialModel())  # type: ignore[arg-type]
    factors = method.weigh(torch.ones(MASK.shape), MASK, prepared)
    assert factors is not None
    for row, mask in enumerate(MASK):
        expected = torch.exp(-torch.arange(1.0, 1.0 + int(mask.sum())))
        assert torch.allclose(factors[row, mask], expected)
    resumed = make_method(PriFtSettings(), make_tiny_tokenizer(), 0)
    resumed.restore(method.state())
    resumed.restore_tensors(method.tensors())
    filled = {**BATCH, "labels": BATCH["labels"].clone()}
    filled["labels"][1] = -100  # a row that only fills up a batch
    [after] = resumed.prepare(Window([filled], 1, 1, 1), InitialModel())  # type: ignore[arg-type]
    assert torch.equal(after["reference"][0], prepared["reference"][0])
    assert not after["reference"][1].any()


@pytest.mark.parametrize(("token", "mass"), [(0, 1.0), (1, 0.5), (2, 0.2)])
def test_prift_mass_keeps_tokens_in_the_likelier_part_of_the_initial_distribution(token: int, mass: float) -> None:
    """Of 0.5, 0.3 and 0.2, the second is in with 0.3 + 0.2 = 0.5, which is just enough, and the third is out."""
    assert float(P[P[token] >= P].sum()) == pytest.approx(mass)
    settings = PriFtSettings(weights="mass")
    assert weigh(settings, [1.0], reference=[mass]) == [float(mass >= 0.5)]
    assert weigh(PriFtSettings(weights="mass", threshold=0.6), [1.0], reference=[mass]) == [float(mass >= 0.6)]


def test_prift_mass_asks_for_the_initial_models_masses_once(sft_context: MakeContext) -> None:
    trainer = train(sft_context(method={"name": "prift", "weights": "mass"}, max_steps=2, micro_batch_size=4))
    fresh, _ = load_model_and_tokenizer(sft_context("base").inputs["model"] / "model", "float32")
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    with torch.no_grad():
        logits = fresh(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    expected, mask = signals_of(logits, batch["labels"][:, 1:])["mass"], supervised(batch)
    for row, digest in enumerate(row_digests(batch)):
        assert torch.allclose(trainer.method.reference[digest], expected[row, mask[row]], atol=1e-5)


def test_what_prift_was_keeps_its_key_and_a_threshold_is_of_masses_alone() -> None:
    assert PriFtSettings().identity_settings() == {"name": "prift"}
    assert PriFtSettings(weights="mass").identity_settings() == {"name": "prift", "weights": "mass"}
    with pytest.raises(ValidationError, match="threshold: is for weights: mass"):
        PriFtSettings(threshold=0.3)


class Everything(Method):
    """Asks for all signals, keeps them, and weighs nothing."""

    signals = frozenset(SIGNALS)

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> None:
        self.seen.append((mask, prepared))


def signals_of(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The signals of whole logits, [rows, positions - 1, vocabulary]."""
    p = logits.softmax(-1)
    gold = labels.clamp(min=0).unsqueeze(-1)
    others = logits.scatter(-1, gold, -math.inf).max(-1).values
    top = logits.topk(20, -1).values.softmax(-1)
    return {
        "entropy": -(p * p.log()).sum(-1),
        "concentration": p.square().sum(-1),
        "is_top1": (logits.argmax(-1) == gold.squeeze(-1)).float(),
        "top_entropy": -(top * top.log()).sum(-1),
        "logit_gap": logits.gather(-1, gold).squeeze(-1) - others,
        "mass": (p * (p <= p.gather(-1, gold))).sum(-1),
    }


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_signals_are_those_of_whole_logits_in_training_and_beside_it(
    sft_context: MakeContext, lora: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.sft.trl_internals.TILE", 1000)  # several tiles
    method = Everything()
    monkeypatch.setattr("tests.stages.sft.test_trainer.make_method", lambda *_: method)
    trainer = train(sft_context(lora=lora, max_steps=1, micro_batch_size=4))
    (mask, training), *_ = method.seen
    assert set(training) == set(SIGNALS)
    assert all(value.shape == mask.shape and not value[~mask].any() for value in training.values())
    batch = trainer.evaluator.model_inputs(trainer.data_collator([trainer.train_dataset[index] for index in range(3)]))
    with torch.no_grad():
        logits = trainer.model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    mask = supervised(batch)
    for name, value in signals_of(logits[:, :-1].float(), batch["labels"][:, 1:]).items():
        assert torch.allclose(trainer.evaluator.signals(batch)[name], value * mask, atol=1e-4), name


def test_a_method_that_asks_for_nothing_gets_nothing_and_what_does_not_exist_is_refused(
    sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = sft_context(method={"name": "uniform"}, max_steps=1)
    assert train(context).head is None
    method = Everything()
    monkeypatch.setattr(method, "signals", frozenset({"entropy", "surprise"}), raising=False)
    monkeypatch.setattr("tests.stages.sft.test_trainer.make_method", lambda *_: method)
    with pytest.raises(StageError, match="there is no signal surprise") as refused:
        train(context)
    assert "entropy, concentration, is_top1" in refused.value.fix
    assert read_demonstrations(context.inputs["data"] / "sft.jsonl")


def test_a_model_that_scales_its_logits_has_no_gaps(sft_context: MakeContext) -> None:
    trainer = train(sft_context(method={"name": "uniform"}, max_steps=1))
    trainer.model.config.logit_scale = 0.5
    with pytest.raises(ValueError, match="scales its logits"):
        HeadSignals(trainer.model, frozenset({"logit_gap"}), bfloat16=False)
