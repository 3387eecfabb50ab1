"""Verdicts, and the levels that they are held against."""

import itertools

import pytest

from evaluation.gates.levels import holm, spend
from evaluation.gates.verdict import Judgement, Rule, judge, overall
from tests.evaluation.gates.simulation import binary


def one(gained: int, lost: int, rule: Rule, n: int = 1319) -> Judgement:
    (judgement,) = judge([binary(n, gained, lost)], [rule])
    return judgement


def test_a_drop_within_the_tolerance_passes_one_beyond_it_fails_and_between_them_is_undecided() -> None:
    tolerated = Rule("drop", 0.02)
    assert one(20, 20, tolerated).verdict == "PASS"
    assert one(20, 90, tolerated).verdict == "FAIL"
    between = one(20, 45, tolerated)
    assert between.verdict == "UNDECIDED"
    assert between.low < -0.02 < between.high
    assert between.problems_needed is not None
    assert between.problems_needed > 1319


def test_few_problems_decide_little_and_say_how_many_would() -> None:
    judgement = one(0, 0, Rule("drop", 0.02), n=30)
    assert judgement.verdict == "UNDECIDED"
    assert judgement.detectable > 0.08
    assert 300 < (judgement.problems_needed or 0) < 1500


def test_what_must_gain_is_not_passed_by_standing_still() -> None:
    assert one(20, 20, Rule("exceed", 0.01)).verdict == "FAIL"
    assert one(80, 20, Rule("exceed", 0.01)).verdict == "PASS"
    assert one(40, 20, Rule("exceed", 0.01)).verdict == "UNDECIDED"


def test_a_change_is_one_in_either_direction() -> None:
    unchanged = Rule("change", 0.02)
    assert one(10, 10, unchanged).verdict == "PASS"
    assert one(90, 20, unchanged).verdict == "FAIL"
    assert one(20, 90, unchanged).verdict == "FAIL"


def test_one_fail_among_many_has_to_be_clearer_than_alone() -> None:
    seen, rule = binary(1319, 20, 66), Rule("drop", 0.02)
    assert judge([seen], [rule])[0].verdict == "FAIL"
    among = judge([seen, *[binary(1319, 20, 20)] * 9], [rule] * 10)
    assert among[0].verdict == "UNDECIDED"
    assert among[0].p_fail_adjusted == pytest.approx(10 * among[0].p_fail)
    assert {judgement.verdict for judgement in among[1:]} == {"PASS"}


def test_the_gate_fails_with_one_fail_and_passes_only_whole() -> None:
    assert overall(["PASS", "UNDECIDED", "FAIL"]) == "FAIL"
    assert overall(["PASS", "UNDECIDED"]) == "UNDECIDED"
    assert overall(["PASS", "PASS"]) == "PASS"
    assert overall([]) == "UNDECIDED"


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_looks_without_an_end_never_spend_more_than_the_level() -> None:
    spent = list(itertools.accumulate(spend(0.05, look) for look in range(1, 10_001)))
    assert spent[0] == 0.025
    assert spent[39] == pytest.approx(0.05 * 40 / 41)
    assert spent[-1] < 0.05
    with pytest.raises(ValueError, match="the first is number 1"):
        spend(0.05, 0)
