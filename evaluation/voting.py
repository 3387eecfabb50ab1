"""Which samples of a problem give the same answer, for maj@k: votes are pooled by the grader's equality, not by the text."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from evaluation.graders.maths import MAX_ANSWER
from evaluation.graders.notation import as_text, clean, value, without_percent
from evaluation.grading import Grader
from evaluation.records import Problem, Score

CORRECT = "right"
"""The class of all right answers; they are equal to the gold answer and so to each other. No label of another answer is this text."""
MOST_COMPARED = 10
"""Distinct wrong answers of one problem that are compared with each other by algebra, the most frequent ones: 45 pairs of about 0.04 s."""


def pool_votes(scores: Sequence[Score], grader: Grader) -> list[str]:
    """A label for each score: equal labels within a problem are one answer; "" is no answer (none found, or not judged).

    Wrong answers that are the same number or, cleaned, the same text are one. What is left is compared by algebra only where that can
    decide the vote: not where no sample is right or where the right ones outnumber all others together. And only the `MOST_COMPARED`
    most frequent answers of a problem are, none that took the grader too long.
    """
    labels = [_label(score) for score in scores]
    places: dict[tuple[str, str], list[int]] = {}
    for place, score in enumerate(scores):
        places.setdefault((score.benchmark, score.problem_id), []).append(place)
    pairs: list[tuple[list[int], int, int]] = []
    for samples in places.values():
        votes = Counter(labels[place] for place in samples if labels[place])
        right = votes.pop(CORRECT, 0)
        if 0 < right <= votes.total():
            comparable = {
                labels[place]: place for place in samples if labels[place] in votes and _is_comparable(scores[place])
            }
            # `sorted` is stable: of equally frequent ones those that came first.
            compared = sorted(comparable, key=votes.__getitem__, reverse=True)[:MOST_COMPARED]
            pairs += [
                (samples, comparable[one], comparable[other]) for one, other in itertools.combinations(compared, 2)
            ]
    answers = [(scores[one].extracted or "", scores[other].extracted or "") for _, one, other in pairs]
    graded = grader.grade(
        [(Problem("", "", "maths", "", one), f"\\boxed{{{other}}}", "stop") for one, other in answers]
    )
    for (samples, one, other), result in zip(pairs, graded, strict=True):
        if result.verdict == "correct":
            merged = labels[other]
            for place in samples:
                if labels[place] == merged:
                    labels[place] = labels[one]
    return labels


def _label(score: Score) -> str:
    if score.verdict == "correct":
        return CORRECT
    if score.verdict in ("no_answer", "grader_error") or score.extracted is None:
        return ""
    if len(score.extracted) > MAX_ANSWER:
        return f"text {score.extracted}"
    number = value(without_percent(clean(score.extracted)))
    return f"text {as_text(score.extracted)}" if number is None else f"number {number}"


def _is_comparable(score: Score) -> bool:
    """Whether algebra may show that it is the same as another: no letter of multiple choice is, nor what hung the grader or is too long."""
    answer = score.extracted or ""
    return score.verdict == "wrong" and len(answer) <= MAX_ANSWER and not (len(answer) == 1 and answer.isalpha())
