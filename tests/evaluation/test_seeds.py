"""Intervals over seeds: known quantiles, and coverage on synthetic runs with a known mean."""

import random

import pytest

from evaluation.seeds import over_seeds, t_quantile


@pytest.mark.parametrize(("degrees", "value"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)])
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
    assert not over_seeds([0.3]).distinguishable
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])
    with pytest.raises(ValueError, match="degrees of freedom"):
        t_quantile(0.975, 0)
