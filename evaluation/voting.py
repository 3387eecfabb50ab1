"""Which samples of a problem give the same answer, for maj@k: votes are pooled by the grader's equality, not by the text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from evaluation.graders.maths import clean, whole_number
from evaluation.grading import Grader
from evaluation.records import Problem, Score

CORRECT = "correct"
"""The class of all right answers; they are equal to the gold answer and so to each other."""


def pool_votes(scores: Sequence[Score], grader: Grader) -> list[str]:
    """A label for each score: equal labels within a problem are one answer; "" is no answer (none found, or not judged).

    Wrong answers are compared with each other only where that can decide the vote: not where no sample is right or where the right ones
    outnumber all others together.
    """
    labels = [_label(score) for score in scores]
    places: dict[tuple[str, str], list[int]] = {}
    for place, score in enumerate(scores):
        places.setdefault((score.benchmark, score.problem_id), []).append(place)
    pairs: list[tuple[list[int], str, str]] = []
    for samples in places.values():
        given = [labels[place] for place in samples if labels[place]]
        right = given.count(CORRECT)
        if 0 < right <= len(given) - right:
            wrong = dict.fromkeys(label for label in given if label != CORRECT)
            pairs += [(samples, one, other) for one, other in itertools.combinations(wrong, 2)]
    graded = grader.grade([(Problem("", "", "maths", "", one), f"\\boxed{{{other}}}", "stop") for _, one, other in pairs])
    for (samples, one, other), result in zip(pairs, graded, strict=True):
        if result.verdict == "correct":
            for place in samples:
                if labels[place] == other:
                    labels[place] = one
    return labels


def _label(score: Score) -> str:
    if score.verdict == "correct":
        return CORRECT
    if score.verdict in ("no_answer", "grader_error") or score.extracted is None:
        return ""
    return whole_number(score.extracted) or clean(score.extracted)
