"""Looks at a check with more samples each time: their p-values, what may be paired, and how often they err."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.gates.levels import sample_looks
from evaluation.gates.paired import Sampled, pair
from evaluation.gates.verdict import Rule, judge
from tests.evaluation.gates.simulation import binary, bought

ROUNDS, MOST = 2000, 0.065
"""5 % and three standard errors of so many rounds."""


def test_samples_double_up_to_the_budget() -> None:
    assert sample_looks(4, 32) == [4, 8, 16, 32]
    assert sample_looks(3, 20) == [3, 6, 12, 20]
    assert sample_looks(4, 4) == sample_looks(4, 2) == [4]


def test_each_p_value_counts_once_for_every_look() -> None:
    seen, rule = [binary(1319, 20, 20)] * 2, [Rule("drop", 0.01)] * 2
    once = judge(seen, rule)
    among = judge(seen, rule, looks=[1, 4])
    assert among[0].p_pass == once[0].p_pass
    assert among[1].p_pass == pytest.approx(4 * once[0].p_pass)
    assert among[1].detectable > among[0].detectable
    assert (once[0].verdict, among[1].verdict) == ("PASS", "UNDECIDED")
    fails = [binary(1319, 20, 60)] * 2
    assert judge(fails, rule, looks=[1, 4])[1].p_fail == pytest.approx(min(1.0, 4 * judge(fails, rule)[0].p_fail))


def sampled(samples: int, shares: float = 0.5, **sampling: Any) -> Sampled:
    details = {"sampling": {"samples": samples, "temperature": 1.0, **sampling}}
    return Sampled({f"p{i}": shares for i in range(20)}, samples, str(details), details)


def test_other_numbers_of_samples_pair_where_that_is_asked_for_and_nothing_else_differs() -> None:
    assert pair(sampled(2), sampled(4, 0.75), any_samples=True).mean == 0.25
    with pytest.raises(ValueError, match=r"the protocols differ: sampling\.samples: 2 / 4"):
        pair(sampled(2), sampled(4))
    with pytest.raises(ValueError, match=r"sampling\.temperature"):
        pair(sampled(2), sampled(4, temperature=0.5), any_samples=True)
    unknown = Sampled(sampled(2).shares, 2)
    with pytest.raises(ValueError, match="2 samples a problem before, 4 after"):
        pair(unknown, sampled(4))
    assert pair(unknown, sampled(4), any_samples=True).mean == 0


@pytest.mark.parametrize("how", ["all", "few"])
@pytest.mark.parametrize("baseline", [None, 4])
def test_at_the_margin_at_most_5_per_cent_pass_and_5_per_cent_fail(how: str, baseline: int | None) -> None:
    gate = bought(164, sample_looks(4, 32), 0.03, 0.03, how, ROUNDS, baseline=baseline)
    assert gate.passed <= MOST
    assert gate.failed <= MOST


def test_a_gate_that_buys_decides_about_as_often_as_one_that_takes_all_at_once_with_half_the_samples() -> None:
    looks = sample_looks(4, 32)
    bought_passes, all_passes = (bought(164, one, 0.03, 0.0, "all", 300) for one in (looks, [32]))
    assert bought_passes.passed >= 0.8 * all_passes.passed
    assert bought_passes.samples <= 0.6 * 32
