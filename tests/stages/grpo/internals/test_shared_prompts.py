"""Completions that share their prompt in a row of the model's input have the log-probabilities of rows of their own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from stages.grpo.trl_internals.shared_prompts import SETTING, Shared, numbers, require_same
from stages.harness.context import StageError
from stages.training.library_internals import score_labelled_positions_only
from stages.training.same_outputs import check_same
from tests.stages.grpo.runs import BRIEF, result
from tests.tiny import make_tiny_model, run_stage_program

PROMPTS = [[5, 6, 7], [9], [5, 6, 7], [9], [5, 6, 7]]
COMPLETIONS = [[20, 21], [30, 31, 32], [], [33], [22, 23, 24]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    score_labelled_positions_only()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


def micro_batch() -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, int]]]:
    """Ids and mask as TRL pads them, [5, 3 + 3], and the lengths."""
    start, keep = max(map(len, PROMPTS)), max(map(len, COMPLETIONS))
    rows, masks = [], []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        left, right = start - len(prompt), keep - len(completion)
        rows.append([0] * left + prompt + completion + [0] * right)
        masks.append([0] * left + [1] * (start + keep - left - right) + [0] * right)
    lengths = list(zip(map(len, PROMPTS), map(len, COMPLETIONS), strict=True))
    return torch.tensor(rows), torch.tensor(masks), lengths


def rows_of_their_own(model: Any) -> Any:
    ids, mask, _ = micro_batch()
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :3] = -100
    return model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)


def test_equal_prompts_have_equal_numbers_whatever_stands_in_their_padding() -> None:
    ids = torch.tensor([[0, 5, 6], [7, 5, 6], [1, 5, 6], [7, 5, 6], [0, 0, 6]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
    assert numbers(ids, mask) == [0, 1, 0, 1, 4]


def test_a_prompt_stands_once_and_each_completion_behind_its_last_token() -> None:
    _, _, lengths = micro_batch()
    shared = Shared.of(lengths, [0, 1, 0, 1, 0], (3, 3))
    ids = micro_batch()[0].flatten()
    padding = [5, 5, 5]  # any token
    assert ids[torch.tensor(shared.sources)].tolist() == [[5, 6, 7, 20, 7, 22, 23], [9, 30, 31, 9, *padding]]
    assert shared.positions == [[0, 1, 2, 3, 2, 3, 4], [0, 1, 2, 0, 0, 0, 0]]
    assert shared.segments == [[0, 0, 1, 1, 3, 3, 3], [1, 1, 1, 2, -1, -1, -1]]


def test_the_first_comparison_waits_for_two_completions_in_one_row() -> None:
    def company(*completions: int) -> bool:
        return Shared.of([(3, tokens) for tokens in completions], [0] * len(completions), (3, 3)).has_company

    assert company(1, 3)
    assert not company(2)
    assert not company(2, 0)  # masked as a whole


def test_log_probabilities_entropies_and_gradients_are_those_of_rows_of_their_own(model: Any) -> None:
    ids, _, lengths = micro_batch()
    weights = torch.rand(5, 3, dtype=torch.float64)
    alone = rows_of_their_own(model)
    (alone.log_probs[:, -3:] * weights).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logps, entropies = Shared.of(lengths, [0, 1, 0, 1, 0], (3, 3)).score(model, ids, 3, entropy=True)
    (logps * weights).sum().backward()
    assert torch.allclose(logps, alone.log_probs[:, -3:], atol=1e-6)  # the model's norms round to float32
    assert entropies is not None
    assert torch.allclose(entropies, alone.entropy[:, -3:], atol=1e-6)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm()
    assert logps[2].tolist() == [0, 0, 0]  # no tokens


def test_without_a_token_the_gradient_is_zero_and_not_missing(model: Any) -> None:
    ids, _, _ = micro_batch()
    model.zero_grad()
    logps, _ = Shared.of([(1, 0)], [0], (3, 3)).score(model, ids[1:2], 3, entropy=False)
    logps.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_a_model_that_does_not_heed_the_mask_is_found_out(model: Any) -> None:
    ids, mask, lengths = micro_batch()
    shared = Shared.of(lengths, [0, 1, 0, 1, 0], (3, 3))

    def causal_alone(**inputs: Any) -> Any:
        return model(**{**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])})

    def compare(scored: Any, alone: torch.Tensor, exact: bool) -> None:
        seen = (shared.score(scored, ids, 3, sees_all=blind)[0].float() for blind in (False, True))
        check_same(next(seen), alone.float(), next(seen), mask[:, 3:], SETTING, exact=exact)

    alone = rows_of_their_own(model).log_probs[:, -3:]
    compare(model, alone, exact=True)
    rough = copy.deepcopy(model).bfloat16()
    add_fused_lm_head(rough, outputs=("log_probs", "entropy"))
    compare(rough, rows_of_their_own(rough).log_probs[:, -3:], exact=False)
    for exact in (True, False):
        with pytest.raises(StageError, match="share_prompts: this model computes other log-probabilities"):
            compare(causal_alone, alone, exact)


def test_how_far_log_probabilities_may_lie_apart() -> None:
    alone, seen = torch.full((2, 4), -1.0), torch.ones(2, 4)
    seen[1, 2:] = 0  # padding, where they may be anything
    blind = torch.tensor([[0.0] * 4, [0.4] * 4])  # the second completion of the row sees the first

    def refused(off: float, *, exact: bool, most: float = 1.0) -> bool:
        shared = alone + torch.tensor([[0.0] * 4, [off, off, 9.0, 9.0]])
        try:
            check_same(shared, alone, alone + most * blind, seen, SETTING, exact=exact)
        except StageError:
            return True
        return False

    assert [refused(off, exact=True) for off in (9e-4, 2e-3)] == [False, True]
    assert [refused(off, exact=False) for off in (0.19, 0.21)] == [False, True]  # half of what the mask is worth
    assert [refused(off, exact=False, most=0.1) for off in (0.045, 0.055)] == [False, True]  # rounding alone
    assert refused(float("nan"), exact=False)


def test_what_prompts_cannot_be_shared_with_is_refused(tmp_path: Path) -> None:
    make_tiny_model(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    require_same(model, experts=False)
    with pytest.raises(StageError, match="balances experts"):
        require_same(model, experts=True)
    model.config.attention_dropout = 0.1
    with pytest.raises(StageError, match="drops activations"):
        require_same(model, experts=False)
    model.config.attention_dropout = 0.0
    model.config.layer_types[0] = "sliding_attention"
    with pytest.raises(StageError, match="layers of sliding_attention"):
        require_same(model, experts=False)
    model.config.layer_types, model.config.sliding_window = None, 4096  # as Mistral has it
    with pytest.raises(StageError, match="layers of sliding_attention"):
        require_same(model, experts=False)
    model.config.sliding_window = None
    model.set_attn_implementation("eager")
    with pytest.raises(StageError, match="attention 'eager' takes no mask"):
        require_same(model, experts=False)


@pytest.mark.slow
def test_the_sampler_agrees_with_a_trainer_that_shares_prompts(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    run = run_stage_program(tmp_path, "grpo", {**BRIEF, "steps": 3, "share_prompts": True}, grpo_inputs, seed=3)
    assert (run.code, run.error) == (0, None), run.log
    assert 0 <= result(run)["proof"]["logprob_difference_max"] < 1e-3
