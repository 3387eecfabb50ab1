"""Verdicts about published numbers, against known intervals and against runs whose truth is known."""

import random
from collections import Counter

import pytest

from evaluation.published.reproduction import (
    INDEPENDENT,
    NOT_REPRODUCED,
    REPRODUCED,
    SAME_PROBLEMS,
    UNDECIDABLE,
    Reproduction,
    reproduction,
)


def once(right: int, n: int) -> list[list[float]]:
    """One sample of each problem."""
    return [[1.0]] * right + [[0.0]] * (n - right)


@pytest.mark.parametrize(
    ("measured", "published", "interval"),
    [  # Newcombe (1998), Statistics in Medicine 17, 873-890, table II, method 10, measured minus published
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_one_sample_a_problem_has_newcombes_interval(
    measured: tuple[int, int], published: tuple[int, int], interval: tuple[float, float]
) -> None:
    right, n = published
    found = reproduction(right / n, n, once(*measured), 0.01, same_problems=False)
    assert (found.low, found.high) == pytest.approx(interval, abs=6e-5)
    assert found.basis == INDEPENDENT


def test_the_three_verdicts() -> None:
    """Of 1,319 problems: 18 right beside 1.4 % within a point, 10 right beside 90 %, 816 right beside 62.0 %."""
    verdicts = [
        reproduction(published, 1319, once(right, 1319), 0.01, same_problems=True).verdict
        for published, right in ((0.014, 18), (0.9, 10), (0.62, 816))
    ]
    assert verdicts == [REPRODUCED, NOT_REPRODUCED, UNDECIDABLE]


def test_a_difference_within_the_tolerance_is_none_even_where_it_is_certain() -> None:
    found = reproduction(0.5, 100_000, once(51_000, 100_000), 0.02, same_problems=False)
    assert found.low > 0
    assert found.verdict == REPRODUCED


def test_so_many_problems_as_would_decide_do_and_fewer_do_not() -> None:
    def of(n_published: int, n: int) -> Reproduction:
        return reproduction(0.62, n_published, once(round(0.61 * n), n), 0.04, same_problems=False)

    found = of(2_000, 400)
    assert (found.verdict, found.problems_needed, found.problems_needed_both) == (UNDECIDABLE, 1118, 1420)
    assert [of(2_000, n).verdict for n in (1_100, 1_200)] == [UNDECIDABLE, REPRODUCED]
    assert [of(n, n).verdict for n in (1_400, 1_500)] == [UNDECIDABLE, REPRODUCED]


def test_the_published_numbers_own_error_can_make_any_n_too_small() -> None:
    found = reproduction(0.616, 164, once(94, 164), 0.01, same_problems=True)
    assert (found.verdict, found.problems_needed) == (UNDECIDABLE, None)
    assert found.problems_needed_both == pytest.approx(1010, abs=50)
    assert found.smallest_tolerance == pytest.approx(0.131, abs=0.001)
    finest = reproduction(0.616, 164, once(94, 164), found.smallest_tolerance + 1e-9, same_problems=True)
    assert finest.verdict == REPRODUCED


def test_agreement_of_the_two_runs_would_decide() -> None:
    """94 and 101 of 164: 8 against 1 are a difference (exact McNemar: 0.039), 9 against 2 are none (0.065)."""
    assert reproduction(101 / 164, 164, once(94, 164), 0.01, True).if_agreeing == (NOT_REPRODUCED, 9)
    same = reproduction(101 / 164, 164, once(101, 164), 0.05, True)
    assert same.verdict == UNDECIDABLE
    assert same.if_agreeing is not None
    verdict, most = same.if_agreeing
    assert verdict == REPRODUCED
    assert 16 <= most <= 28  # 1.645 sqrt(most) / 164 is about 0.05
    assert reproduction(101 / 164, 164, once(101, 164), 0.05, False).if_agreeing is None
    assert reproduction(101 / 164, 164, once(101, 164), 0.001, True).if_agreeing is None


def test_samples_of_the_same_problems_narrow_the_interval() -> None:
    """Half of the problems are always solved, one in five in half of its samples: w = 0.2 * 4/3 * 0.25."""
    samples = [[1.0] * 4] * 500 + [[1.0, 1.0, 0.0, 0.0]] * 200 + [[0.0] * 4] * 300
    same, other = (reproduction(0.6, 1000, samples, 0.02, same_problems=same) for same in (True, False))
    assert (same.basis, other.basis) == (SAME_PROBLEMS, INDEPENDENT)
    error = (0.2 * 4 / 3 * 0.25 * (1 + 1 / 4) / 1000) ** 0.5
    assert same.high == pytest.approx(1.972 * error, rel=1e-3)  # t with 199 degrees of freedom
    assert other.high > 2 * same.high
    assert (same.verdict, other.verdict) == (REPRODUCED, UNDECIDABLE)


def test_more_samples_decide_or_the_published_sample_forbids_it() -> None:
    samples = [[1.0] * 2] * 450 + [[1.0, 0.0]] * 100 + [[0.0] * 2] * 450
    found = reproduction(0.5, 1000, samples, 0.014, same_problems=True)
    assert found.verdict == UNDECIDABLE
    assert found.samples_needed is not None
    assert 2 < found.samples_needed < 20
    assert reproduction(0.5, 1000, samples, 0.005, same_problems=True).samples_needed is None


def test_samples_that_all_agree_are_no_certainty() -> None:
    assert reproduction(0.6, 10, [[1.0] * 8] * 6 + [[0.0] * 8] * 4, 0.01, True).basis == INDEPENDENT


@pytest.mark.parametrize(("k", "shape"), [(4, (0.3, 0.3)), (16, (1.0, 1.0)), (4, (0.1, 1.0))])
def test_false_verdicts_are_as_rare_as_they_should_be(k: int, shape: tuple[float, float]) -> None:
    """Problems of every difficulty; the published run is another sample of them, at the same chances or at chances that
    are lower by the tolerance: `not reproduced` in the one case and `reproduced` in the other are false."""
    draw, runs, n, tolerance = random.Random(0), 300, 200, 0.04
    same: Counter[str] = Counter()
    apart: Counter[str] = Counter()
    for _ in range(runs):
        chances = [0.1 + 0.9 * draw.betavariate(*shape) for _ in range(n)]
        problems = [[float(draw.random() < p) for _ in range(k)] for p in chances]
        for verdicts, shift in ((same, 0.0), (apart, tolerance)):
            published = sum(draw.random() < p - shift for p in chances) / n
            verdicts[reproduction(published, n, problems, tolerance, same_problems=True).verdict] += 1
    assert same[NOT_REPRODUCED] / runs < 0.09  # 5 %, and three standard errors
    assert apart[REPRODUCED] / runs < 0.09


@pytest.mark.parametrize(
    ("published", "n", "tolerance"), [(61.6, 164, 0.01), (-0.1, 164, 0.01), (0.5, 0, 0.01), (0.5, 9, 0.0), (0.5, 9, 1)]
)
def test_impossible_numbers_are_refused(published: float, n: int, tolerance: float) -> None:
    with pytest.raises(ValueError, match="with a tolerance of"):
        reproduction(published, n, once(1, 2), tolerance, same_problems=False)


def test_no_problems_and_unequal_samples_are_refused() -> None:
    for problems in ([], [[1.0], [1.0, 0.0]]):
        with pytest.raises(ValueError):
            reproduction(0.5, 10, problems, 0.01, same_problems=False)
