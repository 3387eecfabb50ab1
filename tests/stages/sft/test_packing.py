"""Rows that go through the model end to end, without padding, train as rows of their own do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)
from trl.trainer.utils import add_fused_lm_head

from stages.harness.context import Context, StageError
from stages.sft.packing import Rows, _tried, in_rows, packed, require_same
from stages.sft.reweighting.forward_mode import ForwardMode
from stages.sft.settings import SftSettings
from stages.sft.trl_internals import attention_set_to, sdpa_attention_forward, token_log_probs, watch_hidden_states
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.dealing import deal_within
from tests.stages.sft.test_row_values import ONE_STEP
from tests.stages.sft.test_trainer import METHODS, train, weights
from tests.stages.sft.test_trl_internals import padded_batch

MakeContext = Callable[..., Context[SftSettings]]
SHAPE = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def with_head(model: Any, dtype: torch.dtype = torch.float64) -> Any:
    model = model.to(dtype).eval()
    add_fused_lm_head(model)
    return model


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    return with_head(LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS, **options)))


def test_rows_stand_end_to_end_and_come_apart_again() -> None:
    rows = Rows.of(torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]))
    values = torch.arange(1, 10).reshape(3, 3)
    assert rows.end_to_end(values).tolist() == [1, 2, 3, 4, 7, 8]
    assert rows.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert rows.apart(rows.end_to_end(values)).tolist() == [[1, 2, 3], [4, 0, 0], [7, 8, 0]]


def test_attention_is_computed_for_rows_of_like_length() -> None:
    lengths = [10, 3, 9, 0, 1, 3]
    rows = Rows.of(torch.arange(10) < torch.tensor(lengths).unsqueeze(-1))
    values = torch.arange(sum(lengths)).unsqueeze(-1)
    groups = [(some.shape, some.apart(values[numbers] + 1).squeeze(-1)) for numbers, some in rows.alike]
    assert [shape for shape, _ in groups] == [(2, 10), (2, 3), (1, 1), (1, 1)]
    assert groups[0][1].tolist() == [[*range(1, 11)], [*range(14, 23), 0]]
    assert groups[1][1].tolist() == [[11, 12, 13], [24, 25, 26]]
    assert groups[3][1].tolist() == [[0]]
    assert torch.equal(torch.cat([values[numbers] for numbers, _ in rows.alike])[rows.back], values)


def test_log_probabilities_hidden_states_and_gradients_are_those_of_padded_rows() -> None:
    model, batch = llama(), padded_batch()
    states: list[torch.Tensor] = []
    watch_hidden_states(model, states.append)

    def gradients() -> list[torch.Tensor]:
        log_probs = token_log_probs(model, batch)
        found: list[torch.Tensor] = [log_probs, *torch.autograd.grad(log_probs.sum(), list(model.parameters()))]
        return found

    padded, padded_states = gradients(), states.pop()
    with packed(model):
        ours, our_states = gradients(), states.pop()
    present = batch["attention_mask"] != 0
    assert torch.allclose(our_states[present], padded_states[present], rtol=1e-10, atol=1e-12)
    assert not our_states[~present].any()
    for one, other in zip(ours, padded, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    assert torch.equal(gradients()[0], padded[0])  # nothing is left behind
    assert model.config._attn_implementation == "sdpa"


def test_no_token_sees_another_row() -> None:
    model, batch = llama(), padded_batch()
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0] = 29 - other["input_ids"][0]
    with packed(model):
        before, after = token_log_probs(model, batch), token_log_probs(model, other)
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


def test_exact_utilities_are_those_of_padded_rows() -> None:
    model, batch = llama(), padded_batch()
    parameters = list(model.parameters())
    torch.manual_seed(1)
    direction = [torch.randn_like(parameter) for parameter in parameters]
    measure = ForwardMode(model, parameters)
    padded = measure.utilities(batch, direction)
    with packed(model):
        ours = measure.utilities(batch, direction)
    assert padded.any()
    assert torch.allclose(ours, padded, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "lora"),
    [(name, None) for name in METHODS] + [(name, {"rank": 2}) for name in ("uniform", "asft", "vcore", "vcore_jvp")],
)
def test_a_step_of_each_method_is_that_of_padded_rows(sft_context: MakeContext, name: str, lora: Any) -> None:
    """What a method measures by finite differences in float32 has their rounding, which moves its weights a little."""
    settings = {"method": METHODS[name], "lora": lora, "micro_batch_size": 4, **ONE_STEP}
    context = sft_context("padded", **settings)
    padded, ours = weights(train(context)), weights(train(sft_context("packed", packing=True, **settings)))
    measured = name.startswith("vcore") and name != "vcore_jvp"
    start = weights_before(context)
    moved = 0
    for key, value in padded.items():
        if (before := start.get(key, torch.zeros_like(value) if "lora_B" in key else None)) is None:
            continue
        step, our_step = value - before, ours[key] - before
        if lora is None or "lora_B" in key:
            moved += int(step.any())
            assert (our_step - step).norm() <= (2e-2 if measured else 1e-4) * step.norm() + 1e-6, key
    assert moved > 3


def weights_before(context: Context[SftSettings]) -> dict[str, torch.Tensor]:
    model, _ = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    return dict(model.state_dict())


def test_padding_takes_no_part_in_a_budget_of_tokens() -> None:
    lengths = [(90,), (50,), (10,), (10,), (10,), (10,)]
    assert [rows for rows, _ in deal_within(lengths, 100)] == [[0], [1, 2], [3, 4, 5]]
    assert [rows for rows, _ in deal_within(lengths, 100, padded=False)] == [[0], [1, 2, 3, 4, 5]]


def test_hidden_states_with_their_padding_stay_within_four_budgets() -> None:
    """Rows come apart after the last layer: one long row among many short ones would pad them all to its length."""
    lengths = [(8000,), *[(100,)] * 80]
    dealt = deal_within(lengths, 16_384, padded=False)
    assert sorted(row for rows, _ in dealt for row in rows) == list(range(81))
    assert max(len(rows) * width for rows, [width] in dealt) <= 4 * 16_384


def test_models_name_the_argument_of_the_mask() -> None:
    query = torch.randn(1, 2, 3, 4)
    attention = in_rows(lambda module, query, key, value, attention_mask, **options: (query, attention_mask))
    assert attention(None, query, query, query, attention_mask="theirs") == (query, "theirs")


def test_rows_of_like_length_with_padding_are_among_those_that_a_model_is_tried_with() -> None:
    groups = [some for _, some in Rows.of(_tried(llama())["attention_mask"]).alike]
    assert any(some.shape[0] > 1 and len(some.places) < some.shape[0] * some.shape[1] for some in groups)
    assert (1, 1) in [some.shape for some in groups]


def test_a_model_that_fails_on_rows_end_to_end_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise TypeError("unexpected keyword argument 'rows_end_to_end'")

    monkeypatch.setattr("stages.sft.packing._of_rows_only", fails)
    with pytest.raises(StageError, match="cannot compute rows end to end: unexpected keyword argument"):
        require_same(llama(), experts=False)


def test_models_that_would_compute_something_else_are_refused() -> None:
    require_same(llama(), experts=False)
    require_same(llama(attention_bias=True), experts=False)
    with pytest.raises(StageError, match="balances experts"):
        require_same(llama(), experts=True)
    windows = MistralForCausalLM(MistralConfig(**SHAPE, **HEADS, sliding_window=8))
    with pytest.raises(StageError, match="layers of sliding_attention"):
        require_same(with_head(windows), experts=False)
    whole = MistralForCausalLM(MistralConfig(**SHAPE, **HEADS, sliding_window=None))
    require_same(with_head(whole), experts=False)
    eager = llama()
    eager.set_attn_implementation("eager")
    with pytest.raises(StageError, match="attention 'eager' takes no mask"):
        require_same(eager, experts=False)
    bloom = with_head(BloomForCausalLM(BloomConfig(vocab_size=30, hidden_size=16, n_layer=2, n_head=2)))
    with pytest.raises(StageError, match=r"sft\.packing: "):
        require_same(bloom, experts=False)
    mamba = with_head(MambaForCausalLM(MambaConfig(vocab_size=30, hidden_size=16, state_size=4, num_hidden_layers=2)))
    with pytest.raises(StageError, match=r"sft\.packing: "):
        require_same(mamba, experts=False)


def test_learned_positions_are_those_of_each_row() -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 30, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = with_head(OPTForCausalLM(OPTConfig(**shape, word_embed_proj_dim=16, max_position_embeddings=32)))
    require_same(model, experts=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_heeds_no_rows_is_found(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one with a state that runs through the row: what is put end to end is one row to it."""
    model = llama(initializer_range=0.5).to(dtype)
    require_same(model, experts=False)

    def blind(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        options.pop("rows_end_to_end")
        return sdpa_attention_forward(module, query, key, value, None, **options)

    monkeypatch.setattr("stages.sft.packing._of_rows_only", blind)
    with pytest.raises(StageError, match="computes other log-probabilities with it"):
        require_same(model, experts=False)


def test_layers_that_are_not_told_of_the_rows_are_an_error() -> None:
    model, batch = llama(), padded_batch()
    with packed(model):
        model.base_model._forward_pre_hooks.clear()
        model.base_model._forward_pre_hooks_with_kwargs.clear()
        with pytest.raises(StageError, match="are not told which rows stand end to end"):
            model.base_model(input_ids=batch["input_ids"])


def test_attention_in_place_of_the_rows_own_has_no_masks_either() -> None:
    model, seen = llama(), []

    def forward(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        seen.append(mask)
        options.pop("rows_end_to_end", None)
        return sdpa_attention_forward(module, query, key, value, None, **options)

    with packed(model), attention_set_to(model, "another", forward):
        token_log_probs(model, padded_batch())
    with attention_set_to(model, "another", forward):
        token_log_probs(model, padded_batch())
    assert [mask is None for mask in seen] == [True, True, False, False]
