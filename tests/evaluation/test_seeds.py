"""Intervals over seeds: known quantiles, and coverage on synthetic runs with a known mean."""

import random

import pytest

from evaluation.metrics.estimates import t_quantile
from evaluation.seeds import next_seed, over_seeds


@pytest.mark.parametrize(
    ("degrees", "value"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_quantiles_of_the_tables(degrees: int, value: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(value, abs=5e-5)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = random.Random(0)
    covered = 0
    for _ in range(2000):
        found = over_seeds([rng.gauss(0.4, 0.1) for _ in range(5)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.4 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_interval_and_none_is_an_error() -> None:
    assert over_seeds([0.3]).low is None
    assert over_seeds([0.3]).verdict == "one seed: cannot be told"
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])
    with pytest.raises(ValueError, match="degrees of freedom"):
        t_quantile(0.975, 0)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.1, 0.12, 0.11], "higher"),
        ([-0.1, -0.12, -0.11], "lower"),
        ([0.1, -0.12, 0.11], "not distinguishable"),
        ([0.1, 0.101], "2 seeds: too few to tell"),
        ([0.5, -0.4], "2 seeds: too few to tell"),
        ([0.025, 0.025], "2 seeds: too few to tell"),
        # Equal but for rounding, which is no spread either.
        ([0.525 - 0.5, 0.725 - 0.7, 0.325 - 0.3], "the same in every seed: no spread to judge by"),
        ([0.0, 0.0, 0.0], "the same in every seed: no spread to judge by"),
    ],
)
def test_a_verdict_wants_three_seeds_and_a_spread(differences: list[float], verdict: str) -> None:
    assert over_seeds(differences).verdict == verdict


def test_the_next_run_lies_in_its_interval_as_often_as_it_says() -> None:
    """And in the interval of the mean far too seldom: a published score is one run."""
    rng = random.Random(1)
    inside = in_mean = 0
    for _ in range(2000):
        *ours, theirs = [rng.gauss(0.4, 0.1) for _ in range(6)]
        bounds, mean = next_seed(ours), over_seeds(ours)
        assert bounds is not None
        assert mean.low is not None
        assert mean.high is not None
        inside += bounds[0] <= theirs <= bounds[1]
        in_mean += mean.low <= theirs <= mean.high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
    assert in_mean / 2000 < 0.75
    assert next_seed([0.3]) is None
    assert next_seed([0.3, 0.3]) is None
