"""The token distributions: their constraint, their limits and their invariances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.sft.reweighting import gibbs
from stages.sft.reweighting.gibbs import capped, weights_at_temperature, weights_within_kl

UTILITIES = st.lists(
    st.lists(st.floats(-100, 100, allow_nan=False, width=32), min_size=1, max_size=12), min_size=1, max_size=5
)  # rows of different lengths


def padded(rows: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows) + 1
    utility = torch.tensor([row + [999.0] * (width - len(row)) for row in rows])  # the padding must not matter
    mask = torch.tensor([[position < len(row) for position in range(width)] for row in rows])
    return utility, mask


def divergence(q: torch.Tensor, mask: torch.Tensor) -> list[float]:
    return [
        sum(p * math.log(p * int(m.sum())) for p in row[m].tolist() if p > 0) for row, m in zip(q, mask, strict=True)
    ]


@settings(deadline=None, max_examples=200)
@given(rows=UTILITIES, kl=st.floats(1e-5, 2.0))
def test_rows_are_distributions_that_use_their_budget(rows: list[list[float]], kl: float) -> None:
    utility, mask = padded(rows)
    weights = weights_within_kl(utility, mask, kl)
    assert torch.allclose(weights.q.sum(-1), torch.ones(len(rows), dtype=torch.float64), atol=1e-9)
    assert (weights.q[~mask] == 0).all()
    assert (weights.q >= 0).all()
    assert weights.kl.tolist() == pytest.approx(divergence(weights.q, mask), abs=1e-7)
    for row, reached in zip(rows, weights.kl.tolist(), strict=True):
        assert reached <= kl + 1e-6
        values = torch.tensor(row).double()
        relative_gap = (
            (values.max() - values[values < values.max()].max()).item() / values.std().item()
            if len(set(row)) > 1
            else 0.0
        )
        if relative_gap > 1e-3:  # clearly one or more largest values, and something below them
            ties = row.count(max(row))
            assert reached == pytest.approx(min(kl, 0.999 * math.log(len(row) / ties)), rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(rows=UTILITIES, kl=st.floats(1e-4, 1.0))
def test_a_larger_utility_never_has_a_smaller_weight(rows: list[list[float]], kl: float) -> None:
    utility, mask = padded(rows)
    q = weights_within_kl(utility, mask, kl).q
    for row, weights in zip(rows, q, strict=True):
        ordered = [weights[index].item() for index in sorted(range(len(row)), key=lambda index: row[index])]
        assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(ordered))


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
def test_scale_and_shift_of_the_utilities_do_not_matter(factor: float) -> None:
    torch.manual_seed(0)
    utility, mask = torch.randn(4, 30).double(), torch.ones(4, 30, dtype=torch.bool)
    expected = weights_within_kl(utility, mask, 0.1).q
    assert torch.allclose(weights_within_kl(factor * utility + 3 * factor, mask, 0.1).q, expected, atol=1e-9)


HARD: dict[str, torch.Tensor] = {
    "nearly tied": torch.cat([torch.tensor([1.0, 1 - 3e-12]).double(), torch.zeros(1).double()]),
    "one far below": torch.cat([torch.tensor([-1e9]).double(), torch.linspace(0, 1, 3).double() ** 2]),
    "one far above": torch.cat([torch.tensor([1e9]).double(), torch.linspace(0, 1, 2000).double()]),
    "two values": (torch.arange(1000) < 500).double(),
    "heavy tail": torch.linspace(0.001, 0.999, 500).double().sub(0.5).mul(math.pi).tan(),
    "light tail": torch.arange(400).double() ** 3,
    "long tail below": -(torch.linspace(0, 30, 400).double().exp()),
    "of three": torch.tensor([0.0, 1.0, 3.0]).double(),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("kl", [1e-8, 1e-3, 0.05, 0.69, 2.0, 6.0])
def test_the_search_finds_what_bisection_finds_in_hard_rows(
    name: str, kl: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number of steps is fixed; where to look is free it ends early, with the same result to the bit."""
    utility, mask = HARD[name][None], torch.ones(1, len(HARD[name]), dtype=torch.bool)
    early = weights_within_kl(utility, mask, kl)
    monkeypatch.setattr(gibbs, "FREE_LOOKS", ())
    weights = weights_within_kl(utility, mask, kl)
    assert torch.equal(early.q, weights.q)
    shifted = HARD[name] - HARD[name].max()
    shifted = shifted / shifted.std(correction=0)
    ties = int((shifted > -1e-12).sum())
    target = min(kl, 0.999 * math.log(len(shifted) / ties))

    def divergence_at(log_beta: float) -> float:
        log_q = torch.log_softmax(math.exp(log_beta) * shifted, 0)
        return float((log_q.exp() * log_q).sum()) + math.log(len(shifted))

    low, high = -20.0, 60.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if divergence_at(middle) < target else (low, middle)
    expected = torch.softmax(math.exp(0.5 * (low + high)) * shifted, 0)
    assert weights.kl.item() == pytest.approx(target, rel=1e-7, abs=1e-12)
    assert torch.allclose(weights.q[0], expected, atol=1e-6)


def test_utilities_that_are_not_finite_are_neutral() -> None:
    utility = torch.tensor([[1.0, math.nan, 3.0, math.inf], [math.nan] * 4])
    mask = torch.ones(2, 4, dtype=torch.bool)
    weights = weights_within_kl(utility, mask, 0.1)
    assert weights.q[0, 1] == weights.q[0, 3]
    assert weights.q[0, 0] < weights.q[0, 1] < weights.q[0, 2]
    assert torch.allclose(weights.q[1], torch.full((4,), 0.25, dtype=torch.float64))


def test_no_budget_one_token_no_token_and_equal_utilities_are_uniform() -> None:
    utility = torch.tensor([[1.0, 2.0, 3.0], [7.0, 0.0, 0.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[True] * 3, [True, False, False], [False] * 3, [True] * 3])
    assert torch.allclose(weights_within_kl(utility, mask, 0.0).q * mask.sum(-1, keepdim=True), mask.double())
    tilted = weights_within_kl(utility, mask, 0.1)
    assert torch.allclose(tilted.q[1:], weights_within_kl(utility, mask, 0.0).q[1:])
    assert tilted.kl[1:].tolist() == [0.0, 0.0, 0.0]


def test_temperature_is_a_softmax() -> None:
    utility, mask = padded([[1.0, -2.0, 0.5], [3.0, 4.0]])
    weights = weights_at_temperature(utility, mask, beta=0.5)
    assert weights.q[0, :3].tolist() == pytest.approx(
        torch.softmax(torch.tensor([1.0, -2.0, 0.5]).double() / 2, 0).tolist()
    )
    assert weights.q[1, :2].tolist() == pytest.approx(torch.softmax(torch.tensor([3.0, 4.0]).double() / 2, 0).tolist())
    assert weights.kl.tolist() == pytest.approx(divergence(weights.q, mask))


@settings(deadline=None, max_examples=100)
@given(rows=UTILITIES, kl=st.floats(1e-3, 2.0), largest=st.floats(1.05, 8.0))
def test_a_cap_holds_and_only_brings_weights_nearer_to_uniform(
    rows: list[list[float]], kl: float, largest: float
) -> None:
    utility, mask = padded(rows)
    free = weights_within_kl(utility, mask, kl)
    held = capped(free, mask, largest)
    counts = mask.sum(-1, keepdim=True)
    assert torch.allclose(held.q.sum(-1), torch.ones(len(rows), dtype=torch.float64), atol=1e-9)
    assert (held.q * counts <= max(largest, 1.0) + 1e-9).all()
    assert (held.kl <= free.kl + 1e-9).all()
    assert held.kl.tolist() == pytest.approx(divergence(held.q, mask), abs=1e-9)
    untouched = (free.q * counts <= largest).all(-1)
    assert torch.allclose(held.q[untouched], free.q[untouched], rtol=1e-12)
