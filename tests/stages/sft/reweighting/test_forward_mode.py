"""Exact utilities by forward mode, against one backward pass for each token; and differences against both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3
from trl.trainer.utils import add_fused_lm_head

from stages.harness.context import StageError
from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Window
from stages.sft.reweighting.diagnostics import rank_agreement
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.reweighting.forward_mode import QUERY_BLOCK, ForwardMode
from stages.sft.reweighting.vcore import Vcore

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 8,
}


def qwen3(tied: bool = True, kv_heads: int = 2) -> Any:
    config = Qwen3Config(**SHAPE, num_key_value_heads=kv_heads, tie_word_embeddings=tied, max_position_embeddings=512)
    return Qwen3ForCausalLM(config)


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(**SHAPE, num_key_value_heads=4, tie_word_embeddings=False, max_position_embeddings=512)
    )


def mixture_of_experts() -> Any:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = Qwen3MoeConfig(**SHAPE, **experts, num_key_value_heads=2, max_position_embeddings=512)
    return Qwen3MoeForCausalLM(config)


def with_lora(model: Any) -> Any:
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # as after some training; at the start B is zero
    return adapted


MODELS: dict[str, Callable[[], Any]] = {
    "tied embeddings, grouped queries": qwen3,
    "untied, one group": lambda: qwen3(tied=False, kv_heads=4),
    "llama": llama,
    "lora": lambda: with_lora(qwen3()),
    "mixture of experts": mixture_of_experts,
}


def batch_of(lengths: tuple[int, ...] = (12, 9), width: int | None = None) -> dict[str, torch.Tensor]:
    """Rows of random tokens, right-padded; the first three tokens of each are the prompt."""
    width = width or max(lengths)
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 50, (len(lengths), width), generator=draw)
    present = torch.arange(width) < torch.tensor(lengths).unsqueeze(-1)
    labels = tokens.masked_fill(~present, -100)
    labels[:, :3] = -100
    return {"input_ids": tokens, "attention_mask": present.long(), "labels": labels}


def prepared(make: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = make().to(dtype).eval()
    add_fused_lm_head(model.get_base_model() if hasattr(model, "get_base_model") else model)
    return model


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def direction_for(model: Any) -> list[torch.Tensor]:
    """The normalised gradient of the loss on other tokens."""
    other = {name: value.flip(0) if name == "input_ids" else value for name, value in batch_of((12, 9)).items()}
    gradient = torch.autograd.grad(model(**other, fused_lm_head=True, use_cache=False).loss, trained(model))
    size = torch.nn.utils.get_total_norm(gradient)
    return [part / size for part in gradient]


def by_backward(model: Any, batch: dict[str, torch.Tensor], direction: list[torch.Tensor]) -> torch.Tensor:
    """One backward pass a token through the model's own forward, without the fused head."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.mT, labels, ignore_index=-100, reduction="none")
    utilities = torch.zeros(losses.shape, dtype=torch.float64)
    for row, position in (labels != -100).nonzero().tolist():
        gradient = torch.autograd.grad(losses[row, position], trained(model), retain_graph=True, allow_unused=True)
        utilities[row, position] = sum(
            (part.double() * along.double()).sum().item()
            for part, along in zip(gradient, direction, strict=True)
            if part is not None
        )
    return utilities


def error(measured: torch.Tensor, exact: torch.Tensor) -> float:
    return ((measured.double() - exact).norm() / exact.norm()).item()


@contextmanager
def all_in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hugging Face's RMSNorm computes in float32 whatever the model; a float64 reference must not."""

    def forward(self: Any, states: torch.Tensor) -> torch.Tensor:
        return self.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    with monkeypatch.context() as patch:
        patch.setattr(modeling_qwen3.Qwen3RMSNorm, "forward", forward)
        patch.setattr(modeling_llama.LlamaRMSNorm, "forward", forward)
        yield


@pytest.mark.parametrize(
    "name", sorted(MODELS.keys() - {"mixture of experts"})
)  # torch's grouped product has no float64
def test_float64_utilities_are_the_token_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = prepared(MODELS[name], torch.float64), batch_of()
    with all_in_double(monkeypatch):
        direction = direction_for(model)
        exact = by_backward(model, batch, direction)
        assert (
            error(ForwardMode(model, trained(model)).utilities(batch, direction), exact) < 1e-6
        )  # softmax and answer are float32


@pytest.mark.parametrize("name", sorted(MODELS))
def test_float32_utilities_are_the_token_gradients(name: str) -> None:
    model, batch = prepared(MODELS[name]), batch_of()
    direction = direction_for(model)
    exact = by_backward(model, batch, direction)
    measured = ForwardMode(model, trained(model)).utilities(batch, direction)
    assert error(measured, exact) < 1e-4
    assert min(rank_agreement(measured, exact, batch["labels"][:, 1:] != -100)) > 0.999
    assert (measured[batch["labels"][:, 1:] == -100] == 0).all()


@pytest.mark.parametrize("name", ["tied embeddings, grouped queries", "lora", "mixture of experts"])
def test_bfloat16_autocast_keeps_the_ranks(name: str) -> None:
    model, batch = prepared(MODELS[name]), batch_of((60, 50))
    direction = direction_for(model)
    exact = by_backward(model, batch, direction)
    with torch.autocast("cpu", torch.bfloat16):
        measured = ForwardMode(model, trained(model)).utilities(batch, direction)
    assert min(rank_agreement(measured, exact, batch["labels"][:, 1:] != -100)) > 0.95
    assert error(measured, exact) < 0.1


def test_sequences_longer_than_a_block_and_padding_do_not_matter() -> None:
    model = prepared(qwen3)
    long, length = batch_of((QUERY_BLOCK + 40, QUERY_BLOCK + 5)), QUERY_BLOCK + 5
    direction = direction_for(model)
    forward = ForwardMode(model, trained(model))
    together = forward.utilities(long, direction)
    alone = forward.utilities(
        {name: value[1:, :length] for name, value in long.items()}, direction
    )  # no padding: the causal path
    assert torch.allclose(together[1, : length - 1], alone[0], atol=1e-5)
    measured = (by_difference(model, long, direction, 1e-3) - by_difference(model, long, direction, -1e-3)) / 2e-3
    assert error(together, measured.double()) < 2e-2


def by_difference(
    model: Any, batch: dict[str, torch.Tensor], direction: list[torch.Tensor], step: float
) -> torch.Tensor:
    with torch.no_grad():
        for parameter, part in zip(trained(model), direction, strict=True):
            parameter.add_(part, alpha=step)
        losses = -model(**batch, fused_lm_head=True, use_cache=False).log_probs
        for parameter, part in zip(trained(model), direction, strict=True):
            parameter.sub_(part, alpha=step)
    return losses


@pytest.mark.parametrize("make", [qwen3, mixture_of_experts])
def test_the_pass_leaves_no_trace(make: Callable[[], Any]) -> None:
    model, batch = prepared(make), batch_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attention, experts = model.config._attn_implementation, model.get_experts_implementation()
    direction = direction_for(model)
    model.zero_grad()
    ForwardMode(model, trained(model)).utilities(batch, direction)
    with pytest.raises(IndexError):
        ForwardMode(model, trained(model)).utilities({**batch, "input_ids": batch["input_ids"] + 100}, direction)
    assert (model.config._attn_implementation, model.get_experts_implementation()) == (attention, experts)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model(**batch, fused_lm_head=True, use_cache=False).loss.backward()  # still trains


def test_models_that_cannot_be_differentiated_are_refused() -> None:
    biased, scaled = prepared(qwen3), prepared(qwen3)
    biased.lm_head = torch.nn.Linear(32, 50)
    scaled.config.logit_scale = 0.5
    for model, message in ((biased, "bias or an adapter"), (scaled, "scales its logits")):
        with pytest.raises(StageError, match=message) as caught:
            ForwardMode(model, trained(model))
        assert "central_difference" in caught.value.fix


def test_an_operation_without_forward_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_eager(self: Any, implementation: Any) -> None:
        """As of a model whose experts cannot be set."""

    model, batch = prepared(mixture_of_experts), batch_of()
    direction = direction_for(model)
    monkeypatch.setattr(type(model), "set_experts_implementation", never_eager)
    with pytest.raises(StageError, match=r"utility jvp: .*_grouped_mm") as caught:
        ForwardMode(model, trained(model)).utilities(batch, direction)
    assert "central_difference" in caught.value.fix


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["tied embeddings, grouped queries", "lora"])
@pytest.mark.parametrize(
    ("utility", "bfloat16", "least"),
    [
        ("finite_difference", False, 0.75),
        ("central_difference", False, 0.9),
        ("central_difference", True, 0.7),
        ("jvp", True, 0.9),
    ],
)
def test_the_default_steps_measure_the_exact_utilities(
    name: str, utility: str, bfloat16: bool, least: float, checkpointing: bool
) -> None:
    """Lowest rank correlation of any row to the exact utilities of its direction, with the step that the servo chooses.

    The random model is a hard case: its losses hardly respond, so the step has to be long. Trained ones reach 0.95.
    """
    model, batch = prepared(MODELS[name]), batch_of((60, 50))
    direction = direction_for(model)
    exact = ForwardMode(model, trained(model)).utilities(batch, direction)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if bfloat16:  # as accelerate does
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    evaluator = ModelEvaluator(
        model,
        [],
        lambda rows: {},
        lambda: None,
        batch_size=2,
        micro_batch_size=2,
        bfloat16=bfloat16,
        seed=0,
    )
    method = Vcore(
        VcoreSettings.model_validate(
            {"name": "vcore", "utility": utility, **({"target_rms": 0.3} if least == 0.7 else {})}
        )
    )
    mask = batch["labels"][:, 1:] != -100
    [known] = method.measurement.prepare(Window([batch], 0, int(mask.sum()), 2), evaluator, direction, 1.0)
    measured = method.measurement.utility(evaluator.losses(batch), mask, known)
    assert min(rank_agreement(measured, exact, mask)) > least
