"""Which samples of a problem give the same answer, for maj@k: the grader's equality decides, not the text."""

import itertools
from collections import Counter
from collections.abc import Sequence

from evaluation.graders.maths import MAX_ANSWER
from evaluation.graders.notation import as_text, clean, value, without_percent
from evaluation.grading import Grader
from evaluation.records import Problem, Score

CORRECT = "right"
"""Label of all right answers, which equal the gold answer and so each other. No other answer has this label."""
MOST_COMPARED = 10
"""How many distinct wrong answers of a problem are compared with each other by algebra: 45 pairs of about 0.04 s."""


def pool_votes(scores: Sequence[Score], grader: Grader) -> list[str]:
    """A label for each score: equal labels within a problem are one answer; "" is no answer, or one not judged.

    Wrong answers that are the same number or, cleaned, the same text are one. Others are compared by algebra where that
    can decide the vote: not where no sample is right, nor where the right ones outnumber all others together. Of each
    problem the `MOST_COMPARED` most frequent ones are compared, without those that took the grader too long.
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
            candidates = (place for place in samples if labels[place] in votes and _is_comparable(scores[place]))
            comparable = {labels[place]: place for place in candidates}
            # `sorted` is stable: of equally frequent answers the first ones are taken.
            compared = sorted(comparable, key=votes.__getitem__, reverse=True)[:MOST_COMPARED]
            pairs += [(samples, *pair) for pair in itertools.combinations(map(comparable.__getitem__, compared), 2)]
    answers = [(scores[one].extracted or "", scores[other].extracted or "") for _, one, other in pairs]
    items = [(Problem("", "", "maths", "", one), f"\\boxed{{{other}}}", "stop") for one, other in answers]
    for (samples, one, other), result in zip(pairs, grader.grade(items), strict=True):
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
    """Whether algebra may show that it equals another answer: letters, timeouts and long answers are left out."""
    answer = score.extracted or ""
    return score.verdict == "wrong" and len(answer) <= MAX_ANSWER and not (len(answer) == 1 and answer.isalpha())
