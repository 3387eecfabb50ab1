"""The test of a margin: its error rates by exact enumeration and by simulation, its interval, its power."""

import math

import numpy as np
import pytest

from evaluation.gates.margin import (
    detectable,
    detectable_difference,
    differences,
    margin_interval,
    margin_test,
    problems_needed,
)
from evaluation.gates.verdict import Rule, judge
from evaluation.statistics import mcnemar_exact, paired_difference
from tests.evaluation.gates.simulation import binary, errors, exact_errors, two_checkpoints


@pytest.mark.parametrize("margin", [-0.1, -0.05, -0.02, 0.0, 0.05])
@pytest.mark.parametrize("gained", [0.0, 0.01, 0.05, 0.2])
def test_single_answers_of_30_problems_err_in_at_most_5_per_cent_of_all_outcomes(margin: float, gained: float) -> None:
    """Nothing is drawn: the chances of all outcomes are added up."""
    above, below = exact_errors(30, margin, max(gained, margin))
    assert above <= 0.05
    assert below <= 0.05


@pytest.mark.parametrize(("margin", "gained"), [(-0.02, 0.0), (-0.02, 0.02), (-0.05, 0.01), (0.0, 0.1)])
def test_single_answers_of_164_problems_err_in_at_most_5_per_cent_of_all_outcomes(margin: float, gained: float) -> None:
    above, below = exact_errors(164, margin, gained)
    assert above <= 0.05
    assert below <= 0.05


@pytest.mark.parametrize("how", ["all", "few"])
@pytest.mark.parametrize(("n", "k"), [(30, 8), (164, 8), (1319, 1), (1319, 8)])
def test_samples_err_in_5_per_cent_of_the_rounds_as_far_as_these_can_tell(n: int, k: int, how: str) -> None:
    """600 rounds: 5 % and three standard errors are 7.7 %. docs/gates.md has 4,000 rounds."""
    above, below = errors(n, k, 0.03, how, 600)
    assert above <= 0.077
    assert below <= 0.077


def test_a_drop_that_no_problem_shows_is_not_shut_out() -> None:
    """30 problems unchanged: a drop of 8 points leaves all of them alone in 8 % of all such draws, one of 10 in 4 %."""
    unchanged = differences([1] * 20 + [0] * 10, [1] * 20 + [0] * 10)
    assert margin_test(unchanged, -0.08)[0] == pytest.approx(0.92**30, rel=0.06)
    assert margin_test(unchanged, -0.1)[0] == pytest.approx(0.9**30, rel=0.06)
    assert margin_test(unchanged, 0.0) == (1.0, 1.0)


@pytest.mark.parametrize(("gained", "lost"), [(9, 2), (30, 14), (3, 3), (80, 110)])
def test_against_no_change_it_agrees_with_mcnemars_exact_test(gained: int, lost: int) -> None:
    assert min(1.0, 2 * min(margin_test(binary(300, gained, lost), 0.0))) == pytest.approx(
        mcnemar_exact(gained, lost), abs=0.05
    )


@pytest.mark.parametrize(("n", "gained"), [(10, 8), (10, 9), (12, 9), (30, 20)])
def test_where_every_answer_turned_it_is_the_binomial_test_of_one_half(n: int, gained: int) -> None:
    """The sum of n turns is even or odd as n is: 8 of 10 gained are p = 0.055, and no PASS of `exceed` at 5 %."""
    seen = binary(n, gained, n - gained)
    exact = sum(math.comb(n, i) for i in range(gained, n + 1)) / 2**n
    assert margin_test(seen, 0.0)[0] == pytest.approx(exact, rel=0.02)
    [judged] = judge([seen], [Rule("exceed", 0.0)])
    assert (judged.verdict == "PASS") == (exact <= 0.05)


def test_samples_that_all_agree_count_as_one_answer() -> None:
    assert differences([0.0, 1.0] * 10, [1.0, 1.0] * 10) == differences([0, 1] * 10, [1, 1] * 10)


def test_the_two_sides_mirror_each_other() -> None:
    up, down = binary(100, 12, 3), binary(100, 3, 12)
    assert margin_test(up, 0.02) == pytest.approx(margin_test(down, -0.02)[::-1], rel=1e-9)


@pytest.mark.parametrize(("n", "k"), [(40, 1), (164, 4)])
def test_the_interval_holds_what_the_test_does_not_reject(n: int, k: int) -> None:
    seen = differences(*two_checkpoints(np.random.default_rng(3), n, k, 0.05, "all"))
    low, high = margin_interval(seen)
    assert low < seen.mean < high
    assert margin_test(seen, low)[0] == pytest.approx(0.025, abs=1e-3)
    assert margin_test(seen, high)[1] == pytest.approx(0.025, abs=1e-3)


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1)])
def test_a_score_that_collapses_or_rises_altogether_has_an_interval_that_ends_with_the_scale(
    before: int, after: int
) -> None:
    seen = differences([before] * 100, [after] * 100)
    low, high = sorted(abs(bound) for bound in margin_interval(seen))
    assert high == 1
    assert low == pytest.approx(2 * 0.025 ** (1 / 100) - 1, abs=2e-3)  # the rest may all have gone the other way
    assert 0 < detectable_difference(seen) < 0.1


@pytest.mark.parametrize(("n", "k"), [(164, 1), (164, 8)])
def test_the_minimum_detectable_effect_is_found_four_times_of_five(n: int, k: int) -> None:
    """800 rounds: 80 % give or take three standard errors are 75.8 to 84.2 %."""
    random = np.random.default_rng(1)
    sizes = [detectable(differences(*two_checkpoints(random, n, k, 0, "all")), 0.05, 0) for _ in range(40)]
    margin = -float(np.median(sizes))
    found = [margin_test(differences(*two_checkpoints(random, n, k, 0, "all")), margin)[0] <= 0.05 for _ in range(800)]
    assert 0.755 <= np.mean(found) <= 0.85


def test_the_effect_that_a_comparison_names_is_found_about_four_times_of_five() -> None:
    """Against the project's exact test, of single answers, which is careful: 75 % in 3,000 rounds, and 800 here."""
    random = np.random.default_rng(2)
    pairs = [two_checkpoints(random, 300, 1, 0, "all") for _ in range(40)]
    effect = float(np.median([detectable_difference(differences(*pair)) for pair in pairs]))
    found = [paired_difference(*two_checkpoints(random, 300, 1, effect, "all")).p_value <= 0.05 for _ in range(800)]
    assert 0.7 <= np.mean(found) <= 0.85


def test_an_effect_half_as_large_needs_four_times_the_problems() -> None:
    assert problems_needed(100, 0.04, 0.02) == 400
    assert problems_needed(100, 0.04, 0.0) is None


def test_all_outcomes_of_a_small_benchmark_have_a_p_value() -> None:
    for gained in range(11):
        for lost in range(11 - gained):
            for margin in (-0.99, -0.3, 0.0, 0.01, 0.99):
                p_values = margin_test(binary(10, gained, lost), margin)
                assert all(0 <= p <= 1 and not math.isnan(p) for p in p_values)
                assert sum(p_values) >= 0.9, "one side at least does not reject"


@pytest.mark.parametrize(
    ("before", "after", "margin", "said"),
    [
        ([1] * 9, [1] * 9, 0.0, "9 common problems, and a gate needs 10"),
        ([1] * 10, [1] * 11, 0.0, "10 problems before, 11 after"),
        ([1] * 10, [1] * 10, 1.0, "not between -1 and 1"),
    ],
)
def test_what_cannot_be_tested_is_refused(before: list[int], after: list[int], margin: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        margin_test(differences(before, after), margin)
