"""A second opinion on maths, by a library that finds the answer itself."""

import pytest

from evaluation.metrics.estimates import wilson_interval
from evaluation.records import Generation, Score, Verdict
from evaluation.second_opinion import second_opinion

COMPLETIONS: dict[str, tuple[str, str, Verdict]] = {
    "a": ("12", "So \\boxed{12}.", "correct"),
    "b": ("\\frac12", "<think>\\boxed{3}</think>So \\boxed{2/4}.", "correct"),
    "c": ("12", "So \\boxed{13}.", "wrong"),
    "d": ("18", "So it is \\boxed{18 dollars}.", "correct"),  # math-verify reads no unit without \text{}
    "e": ("5", "The answer is 5.", "no_answer"),  # and needs no box
    "f": ("7", "So \\boxed{9^{9^{9^{9}}}}.", "timeout"),
    "g": ("\\text{}", "So \\boxed{7}.", "grader_error"),
}  # problem -> (gold, completion, verdict)


def records(completions: dict[str, tuple[str, str, Verdict]]) -> tuple[list[Generation], list[Score]]:
    generations = [Generation("t", name, 0, "", text, "stop", 0, 0, None) for name, (_, text, _) in completions.items()]
    scores = [Score("t", name, 0, verdict, None, gold) for name, (gold, _, verdict) in completions.items()]
    return generations, scores


@pytest.mark.slow
def test_it_names_where_it_disagrees_and_counts_what_it_cannot_judge() -> None:
    found = second_opinion(*records(COMPLETIONS), workers=2, timeout_s=3.0)
    assert [(row["problem_id"], row["verdict"], row["second_verdict"]) for row in found["rows"]] == [
        ("d", "correct", "wrong"),
        ("e", "no_answer", "correct"),
    ]
    assert (found["n"], found["disagreements"], found["without_opinion"]) == (5, 2, 2)
    assert (found["value"], (found["low"], found["high"])) == (0.4, wilson_interval(2, 5))


@pytest.mark.slow
def test_nothing_is_claimed_where_it_judges_nothing() -> None:
    one = {"g": COMPLETIONS["g"]}
    found = second_opinion(*records(one), workers=1, timeout_s=60.0)
    assert (found["n"], found["value"], found["low"], found["without_opinion"]) == (0, None, None, 1)
