"""Statistics against known values and against data whose truth is known."""

import itertools
import math
import random
from statistics import fmean

import pytest

from evaluation.metrics.estimates import (
    clustered_standard_error,
    majority_share,
    mean_estimate,
    pass_at_k,
    t_quantile,
    wilson_interval,
)
from evaluation.statistics import (
    MCNEMAR,
    SIGN_FLIPS,
    SIGN_FLIPS_NORMAL,
    mcnemar_exact,
    paired_difference,
    sign_flip_test,
)


def test_wilson_known_values() -> None:
    # 23 of 60 is the paper's Qwen3-4B on AIME 2024 and 2025.
    assert wilson_interval(23, 60) == pytest.approx((0.2710, 0.5097), abs=5e-4)
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError):
        wilson_interval(successes, trials)


def test_pass_at_k() -> None:
    assert pass_at_k(10, 3, 1) == 0.3
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(5, 1, 5) == 1
    assert pass_at_k(5000, 2500, 100) == pytest.approx(1)
    with pytest.raises(ValueError, match="pass@6 cannot be estimated from 5 samples"):
        pass_at_k(5, 1, 6)
    with pytest.raises(ValueError):
        pass_at_k(5, 6, 1)


def test_pass_at_k_is_unbiased() -> None:
    rng = random.Random(0)
    p, k, n = 0.3, 3, 8
    estimates = [pass_at_k(n, sum(rng.random() < p for _ in range(n)), k) for _ in range(20_000)]
    assert sum(estimates) / len(estimates) == pytest.approx(1 - (1 - p) ** k, abs=0.01)


def sample(rng: random.Random, problems: int, samples: int, spread: float) -> list[list[float]]:
    """0-or-1 samples of problems with success rates around 0.4; `spread` 0: all equal, 1: always right or wrong."""
    out = []
    for _ in range(problems):
        rate = 0.4 if rng.random() >= spread else float(rng.random() < 0.4)
        out.append([float(rng.random() < rate) for _ in range(samples)])
    return out


@pytest.mark.parametrize(("samples", "spread"), [(1, 0.5), (4, 0.0), (4, 0.5), (8, 1.0)])
def test_the_interval_covers_the_truth(samples: int, spread: float) -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(1000):
        estimate = mean_estimate(sample(rng, 60, samples, spread))
        hits += estimate.low <= 0.4 <= estimate.high
    assert 0.925 <= hits / 1000 <= 0.985


def test_the_clustered_error_sees_that_samples_of_a_problem_agree() -> None:
    agreeing = [[float(i < 40)] * 8 for i in range(100)]
    assert clustered_standard_error(agreeing) == pytest.approx(math.sqrt(0.4 * 0.6 / 99))
    assert mean_estimate(agreeing).low == pytest.approx(wilson_interval(40, 100)[0], abs=2e-3)
    independent = sample(random.Random(2), 100, 8, 0.0)
    assert clustered_standard_error(independent) == pytest.approx(math.sqrt(0.4 * 0.6 / 800), rel=0.25)


def test_no_spread_is_not_certainty() -> None:
    assert mean_estimate([[0.0] * 16] * 30).high == pytest.approx(wilson_interval(0, 30)[1])
    assert mean_estimate([[1.0]]).low < 0.3


def test_unequal_or_missing_samples_are_refused() -> None:
    for problems in ([], [[]], [[1.0], [1.0, 0.0]]):
        with pytest.raises(ValueError):
            mean_estimate(problems)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        mean_estimate([[1.5]])


def beta_draws(rng: random.Random, n: int, samples: int, a: float, b: float) -> list[list[float]]:
    """0-or-1 samples of problems whose success rates are Beta(a, b)."""
    return [[float(rng.random() < rate) for _ in range(samples)] for rate in (rng.betavariate(a, b) for _ in range(n))]


@pytest.mark.parametrize("n", [5, 10, 30])
@pytest.mark.parametrize(("k", "a", "b"), [(1, 1.0, 1.0), (1, 2.0, 0.3), (4, 1.0, 1.0), (4, 2.0, 0.3), (4, 0.3, 0.5)])
def test_the_interval_of_pass_at_k_covers_the_truth_with_few_problems(n: int, k: int, a: float, b: float) -> None:
    """Eight samples a problem; a problem fails k tries with chance b (b + 1) ... / ((a + b) (a + b + 1) ...)."""
    truth = 1 - math.prod((b + i) / (a + b + i) for i in range(k))
    rng, hits, repeats = random.Random(6), 0, 600
    for _ in range(repeats):
        values = [[pass_at_k(8, int(sum(samples)), k)] for samples in beta_draws(rng, n, 8, a, b)]
        estimate = mean_estimate(values, samples=8 // k)
        hits += estimate.low <= truth <= estimate.high
    assert hits / repeats >= 0.92


def test_pass_at_one_of_several_samples_is_their_average() -> None:
    problems = beta_draws(random.Random(7), 40, 8, 1, 1)
    assert mean_estimate([[pass_at_k(8, int(sum(samples)), 1)] for samples in problems], samples=8) == mean_estimate(
        problems
    )


def test_t_quantile_known_values() -> None:
    assert [t_quantile(0.975, degrees) for degrees in (1, 2, 9, 29)] == pytest.approx(
        [12.706, 4.303, 2.262, 2.045], abs=1e-3
    )
    with pytest.raises(ValueError):
        t_quantile(0.975, 0)


def test_mcnemar() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(0, 5) == 2 / 32
    assert mcnemar_exact(1, 9) == pytest.approx(22 / 1024)


def test_paired_difference_of_right_and_wrong() -> None:
    before, after = [1.0] * 36 + [0.0] * 14, [1.0] * 48 + [0.0] * 2
    found = paired_difference(before, after)
    assert (found.difference, found.improved, found.worsened, found.n) == (pytest.approx(0.24), 12, 0, 50)
    assert found.p_value == mcnemar_exact(0, 12)
    assert 0.0 < found.low < 0.24 < found.high < 0.4
    same = paired_difference([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    assert same.low < 0 < same.high
    assert (same.difference, same.p_value) == (0.0, 1.0)
    back = paired_difference(after, before)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.slow
@pytest.mark.parametrize(("problems", "samples"), [(80, 1), (80, 4), (5, 4), (6, 4), (10, 2), (10, 4), (10, 16)])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_the_paired_interval_covers_the_truth_and_the_test_keeps_its_level(
    problems: int, samples: int, gain: float
) -> None:
    rng = random.Random(4)
    hits = rejected = 0
    for _ in range(1000):
        before, after = [], []
        for _ in range(problems):
            rate = rng.choice([0.1, 0.5, 0.8])
            before.append(sum(rng.random() < rate for _ in range(samples)) / samples)
            after.append(sum(rng.random() < rate + gain for _ in range(samples)) / samples)
        found = paired_difference(before, after)
        hits += found.low <= gain <= found.high
        rejected += found.p_value < 0.05
    assert 0.93 <= hits / 1000 <= 0.995
    if gain == 0:
        assert rejected / 1000 <= 0.06


def test_equal_differences_are_not_certainty() -> None:
    two = paired_difference([0.25, 0.5], [0.75, 1.0])
    assert (two.difference, two.p_value, two.test) == (0.5, 0.5, SIGN_FLIPS)
    assert two.low < 0 < 0.5 < two.high
    one = paired_difference([0.25], [0.75])
    assert (one.p_value, one.low < 0 < one.high) == (1.0, True)
    ten = paired_difference([0.1] * 10, [0.7] * 10)
    assert ten.p_value == 2 / 1024
    assert 0 < ten.low < 0.5 < 0.65 < ten.high
    none = paired_difference([0.5] * 10, [0.5] * 10)
    assert (none.p_value, none.low < 0 < none.high) == (1.0, True)


def test_the_sign_flip_test() -> None:
    signs = list(itertools.product((-1, 1), repeat=6))
    for values in ([0.25, 0.5, -0.125, 1.0, 0.0, 0.375], [1 / 3, 2 / 3, -1 / 3, 1 / 3, 0.25, 0.1], [0.2] * 6):
        seen = abs(sum(values)) - 1e-9
        expected = fmean(
            float(abs(sum(sign * value for sign, value in zip(choice, values, strict=True))) >= seen)
            for choice in signs
        )
        p_value, name = sign_flip_test(values)
        assert p_value == pytest.approx(expected)
        assert name == SIGN_FLIPS
    changed = [1.0] * 9 + [-1.0] * 3 + [0.0] * 8
    assert sign_flip_test(changed)[0] == pytest.approx(mcnemar_exact(3, 9))


def test_the_approximation_of_the_sign_flip_test_takes_over_where_it_is_as_good() -> None:
    rng = random.Random(8)
    some = [rng.choice([-3, -2, -1, 0, 1, 2, 3]) / 16 for _ in range(400)]
    exact, name = sign_flip_test(some)
    assert 0.01 < exact < 0.9
    assert exact == pytest.approx(
        math.erfc(abs(sum(some)) / math.sqrt(2 * sum(value * value for value in some))), abs=0.03
    )  # it is a step function
    assert name == SIGN_FLIPS
    assert sign_flip_test(some * 20)[1] == SIGN_FLIPS_NORMAL


def test_the_test_is_named_by_the_values_not_by_the_number_of_samples() -> None:
    assert paired_difference([1.0, 0.0], [1.0, 1.0]).test == MCNEMAR
    assert paired_difference([1.0, 0.5], [1.0, 1.0]).test == SIGN_FLIPS


def test_pairing_refuses_different_problems() -> None:
    with pytest.raises(ValueError, match="2 values before, 1 after"):
        paired_difference([0.0, 1.0], [1.0])
    with pytest.raises(ValueError):
        paired_difference([], [])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        paired_difference([0.5], [1.5])


def test_majority_of_votes_with_ties_and_silence() -> None:
    assert majority_share([(1, "a"), (1, "a"), (0, "b")]) == 1
    assert majority_share([(1, "a"), (0, "b"), (0, "b"), (0, "")]) == 0
    assert majority_share([(1, "a"), (0, "b"), (0, "c")]) == pytest.approx(1 / 3)
    assert majority_share([(1, "a"), (0, ""), (0, ""), (0, "")]) == 1  # silence has no vote
    assert majority_share([(0, ""), (0, "")]) == 0
    with pytest.raises(ValueError, match="right answers must all have one vote"):
        majority_share([(1, "a"), (1, "b")])
    with pytest.raises(ValueError, match="right answers must all have one vote"):
        majority_share([(1, "a"), (0, "a")])


def test_majority_accuracy_of_a_model_with_known_chances_and_the_coverage_of_its_interval() -> None:
    """Each problem is answered right with chance p, else with one of two wrong answers; all outcomes make the truth."""
    rng, chances, k = random.Random(5), [0.2, 0.5, 0.8], 5
    outcomes = list(itertools.product("rab", repeat=k))

    def probability(outcome: tuple[str, ...], p: float) -> float:
        return math.prod(p if answer == "r" else (1 - p) / 2 for answer in outcome)

    def share(outcome: tuple[str, ...]) -> float:
        return majority_share([(int(answer == "r"), answer) for answer in outcome])

    truth = fmean(sum(probability(o, p) * share(o) for o in outcomes) for p in chances)
    means, covered, repeats = [], 0, 400
    for _ in range(repeats):
        values = []
        for _ in range(60):
            p = rng.choice(chances)
            values.append([share(tuple("r" if rng.random() < p else rng.choice("ab") for _ in range(k)))])
        estimate = mean_estimate(values)
        means.append(estimate.value)
        covered += estimate.low <= truth <= estimate.high
    assert fmean(means) == pytest.approx(truth, abs=0.01)
    assert covered / repeats >= 0.93
