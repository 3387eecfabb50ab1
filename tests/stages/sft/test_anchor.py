"""The anchor of a method: divergences tile by tile against whole logits, and training against a naive Trainer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from stages.harness.context import Context, StageError
from stages.sft.anchors import divergence
from stages.sft.anchors.divergence import Head, weighted_kl
from stages.sft.objective_settings import AsftSettings
from stages.sft.reweighting import make_method
from stages.sft.reweighting.base import Anchor, Method
from stages.sft.settings import SftSettings
from tests.stages.sft.test_trainer import DealtByLength, losses, train, weights
from tests.tiny import make_tiny_tokenizer

MakeContext = Callable[..., Context[SftSettings]]
# SGD, because Adam divides by the root of tiny second moments and so amplifies rounding.
STEPS = {"max_steps": 4, "learning_rate": 4.0, "max_grad_norm": 0.1, "trainer": {"optim": "sgd"}, "micro_batch_size": 4}


def heads(dtype: torch.dtype, bias: bool = True) -> tuple[Head, Head]:
    """Two heads with a vocabulary of 50 on nine tokens each; the first can be differentiated."""
    torch.manual_seed(0)
    made = []
    for _ in range(2):
        parts = [torch.randn(shape, dtype=dtype) for shape in ((9, 8), (50, 8), (50,))]
        made.append(Head(parts[0], parts[1], parts[2] if bias else None))
    for part in (made[0].states, made[0].weight, made[0].bias):
        if part is not None:
            part.requires_grad_()
    return made[0], made[1]


def naive(model: Head, start: Head, coefficients: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The same sum of whole logits, by autograd."""
    one, other = (torch.nn.functional.linear(h.states, h.weight, h.bias).log_softmax(-1) for h in (model, start))
    first, second = (one, other) if reverse else (other, one)
    return (coefficients * kl_div(second, first, log_target=True, reduction="none").sum(-1)).sum()


def test_both_divergences_on_a_coin() -> None:
    """Model (1/2, 1/2), start (1/4, 3/4): KL(start || model) = ln(1/2)/4 + 3 ln(3/2)/4 = 0.1308, and the other way
    round ln(2)/2 + ln(2/3)/2 = 0.1438."""
    probabilities = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    model, start = (Head(row.unsqueeze(0), torch.eye(2), None) for row in probabilities)
    for reverse, expected in ((False, 0.1308), (True, 0.1438)):
        total, each = weighted_kl(model, start, torch.tensor([3.0]), reverse=reverse)
        assert float(each) == pytest.approx(expected, abs=1e-4)
        assert float(total) == pytest.approx(3 * float(each))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("bias", [False, True])
def test_tiles_give_the_sum_and_the_gradient_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float, reverse: bool, bias: bool
) -> None:
    monkeypatch.setattr(divergence, "TILE", 100)  # two tokens at a time; the last is alone
    model, start = heads(dtype, bias)
    coefficients = torch.linspace(0, 2, 9, dtype=dtype)
    trained = [part for part in (model.states, model.weight, model.bias) if part is not None]
    expected = naive(model, start, coefficients, reverse)
    total, each = weighted_kl(model, start, coefficients, reverse=reverse)
    assert not each.requires_grad
    assert torch.allclose((coefficients * each).sum(), total, rtol=tolerance)
    assert torch.allclose(total, expected, rtol=tolerance)
    for ours, theirs in zip(
        torch.autograd.grad(-0.7 * total, trained), torch.autograd.grad(-0.7 * expected, trained), strict=True
    ):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_is_that_of_finite_differences(reverse: bool) -> None:
    model, start = heads(torch.float64)
    coefficients = torch.linspace(0, 2, 9, dtype=torch.float64)

    def total(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return weighted_kl(Head(states, weight, bias), start, coefficients, reverse=reverse)[0]

    assert torch.autograd.gradcheck(total, (model.states, model.weight, model.bias))


def test_no_tokens_have_no_divergence() -> None:
    model, start = (Head(head.states[:0], head.weight, head.bias) for head in heads(torch.float32))
    total, each = weighted_kl(model, start, torch.zeros(0), reverse=False)
    total.backward()
    assert (total.item(), len(each)) == (0.0, 0)


def test_asft_on_a_worked_example() -> None:
    """One token: the model (1/2, 1/2), the start (1/4, 3/4), lambda 0.05: 1/2 ln 2 + 0.05 * 0.1308 = 0.3531. At the
    model's logits the gradient is 1/2 (p - y) + 0.05 (p - q) = 1/2 (-1/2, 1/2) + 0.05 (1/4, -1/4)."""
    method = make_method(AsftSettings(), make_tiny_tokenizer(), 0)
    assert method.anchor == Anchor(0.05, "forward")
    logits = torch.tensor([[0.5, 0.5]]).log().requires_grad_()
    start = torch.tensor([[0.25, 0.75]]).log()
    loss = cross_entropy(logits, torch.tensor([0]), reduction="none").unsqueeze(0)
    factors = method.weigh(loss.detach(), torch.ones(1, 1, dtype=torch.bool), {})
    assert factors is not None
    eye, coefficients = torch.eye(2), torch.tensor([method.anchor.weight])
    whole = (factors * loss).sum() + weighted_kl(
        Head(logits, eye, None), Head(start, eye, None), coefficients, reverse=False
    )[0]
    assert whole.item() == pytest.approx(0.5 * math.log(2) + 0.05 * 0.13081, abs=1e-5)
    whole.backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([[-0.25 + 0.0125, 0.25 - 0.0125]]), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "kl", "weight"),
    [
        ({}, "forward", 0.05),
        ({"preset": "paper_v1"}, "reverse", 0.05),
        ({"preset": "official"}, "forward", 0.1),
        ({"preset": "official", "kl_weight": 0.3}, "forward", 0.3),
    ],
)
def test_presets_fill_in_what_is_not_given(given: dict[str, Any], kl: str, weight: float) -> None:
    settings = AsftSettings(**given)
    assert (settings.kl, settings.kl_weight) == (kl, weight)
    assert settings.identity_settings() == {"name": "asft", "kl": kl, "kl_weight": weight}


class Naive(DealtByLength):
    """ASFT of whole logits, with a second model's or, under LoRA, peft's own way to the weights below the adapter."""

    reverse: bool
    kl_weight: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.start = None if hasattr(self.model, "peft_config") else copy.deepcopy(self.model)
        if self.start:
            del self.start.forward  # TRL's: it holds on to the model it was made for

    def compute_loss(self, model: Any, inputs: Any, *_: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad(), nullcontext() if self.start else model.disable_adapter():
            log_q = (self.start or model)(**arguments).logits[:, :-1].log_softmax(-1)
        log_p = model(**arguments).logits[:, :-1].log_softmax(-1)
        labels = inputs["labels"][:, 1:]
        own = log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        first, second = (log_p, log_q) if self.reverse else (log_q, log_p)
        kl = kl_div(second, first, log_target=True, reduction="none").sum(-1)
        return (own.detach().exp() * -own + self.kl_weight * kl)[labels != -100].sum() / num_items_in_batch


@pytest.mark.slow
@pytest.mark.parametrize("kl", ["forward", "reverse"])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_asft_trains_as_whole_logits_do(sft_context: MakeContext, kl: str, lora: dict[str, Any] | None) -> None:
    method = {"name": "asft", "kl": kl, "kl_weight": 5.0}
    reference = type("Reference", (Naive,), {"reverse": kl == "reverse", "kl_weight": 5.0})
    theirs = weights(train(sft_context("theirs", lora=lora, **STEPS), reference))
    trainer = train(sft_context("ours", lora=lora, method=method, **STEPS))
    ours, dft = weights(trainer), weights(train(sft_context("dft", lora=lora, method={"name": "dft"}, **STEPS)))
    trained = [name for name in ours if lora is None or "lora_B" in name]
    apart, effect = (
        math.sqrt(sum(float((ours[name] - other[name]).square().sum()) for name in trained)) for other in (theirs, dft)
    )
    assert apart < 1e-4 * effect
    divergences = losses(trainer, "anchor_kl")
    assert divergences[0] == 0.0, "at first the model is the start, to the last bit"
    assert divergences[-1] > 1e-5
    expected = [w + 5.0 * kl for w, kl in zip(losses(trainer, "weighted_loss"), divergences, strict=True)]
    assert losses(trainer) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lora", [None, {"rank": 2, "dropout": 0.5}])
def test_in_bfloat16_too_the_first_divergence_is_zero_without_dropout(
    sft_context: MakeContext, lora: dict[str, Any] | None
) -> None:
    settings = {"method": {"name": "asft", "kl_weight": 1.0}, "dtype": "bfloat16", "max_steps": 3, "lora": lora}
    trainer = train(sft_context(max_tokens_per_micro_batch=300, gradient_checkpointing=True, **settings))
    first, *_, last = losses(trainer, "anchor_kl")
    assert first == 0.0  # the adapter's dropout acts on what is zero at first
    assert last > 0


class KeepsClose(Method):
    """Plain SFT with an anchor: what a method of one's own may ask for."""

    anchor = Anchor(1.0, "reverse")


def test_a_method_of_ones_own_may_have_an_anchor(sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.stages.sft.test_trainer.make_method", lambda *_: KeepsClose())
    trainer = train(sft_context(**STEPS))
    expected = [u + kl for u, kl in zip(losses(trainer, "uniform_loss"), losses(trainer, "anchor_kl"), strict=True)]
    assert losses(trainer) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_scales_its_logits_is_refused(sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.sft import trl_internals

    monkeypatch.setattr(trl_internals, "SCALED_LOGITS", ("hidden_size",))
    with pytest.raises(StageError, match=r"the model scales its logits .*, which the anchor does not know of"):
        train(sft_context(method={"name": "asft"}))
