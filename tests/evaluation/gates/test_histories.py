"""Forty nights, a thousand times: slides are found, and what stands still is left alone."""

from tests.evaluation.gates.simulation import greedy, histories, sampled


def test_of_a_thousand_histories_of_sampling_noise_at_most_5_per_cent_ever_alarm() -> None:
    alarms = histories(lambda random: sampled(random, 1, 0.0), 1, 1000)
    assert sum(night is not None for night in alarms) <= 50


def test_four_samples_a_problem_alarm_no_more_often() -> None:
    """150 histories: 5 % and three standard errors are 15."""
    alarms = histories(lambda random: sampled(random, 4, 0.0), 4, 150)
    assert sum(night is not None for night in alarms) <= 15


def test_greedy_answers_of_which_some_turn_at_random_do_not_alarm() -> None:
    alarms = histories(lambda random: greedy(random, 0, 10), 1, 300)
    assert sum(night is not None for night in alarms) <= 15


def test_seven_greedy_problems_lost_a_night_are_found_within_a_week() -> None:
    found = histories(lambda random: greedy(random, 7, 10), 1, 1000)
    assert all(night is not None and night <= 7 for night in found)


def test_half_a_point_lost_a_night_by_samples_is_found_in_every_history() -> None:
    found = sorted(night or 99 for night in histories(lambda random: sampled(random, 1, 0.005), 1, 1000))
    assert found[-1] <= 40
    assert found[500] <= 12
