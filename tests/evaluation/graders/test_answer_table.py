"""The grader against a table: kinds of gold answers, forms of right and wrong answers, by rules that do not know it."""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from evaluation.grading import Grader
from evaluation.records import Problem
from tests.evaluation.graders import number_rules, quantity_rules, structure_rules, word_rules

SHARE_RIGHT = 0.995
KINDS: dict[str, Callable[[], number_rules.Rows]] = {
    name: rules
    for module in (number_rules, quantity_rules, structure_rules, word_rules)
    for name, rules in inspect.getmembers(module, inspect.isgeneratorfunction)
    if not inspect.signature(rules).parameters and rules.__module__ == module.__name__
}


def emphasised(place: int) -> str:
    return number_rules.EMPHASIS[place % len(number_rules.EMPHASIS)]


@pytest.mark.slow
def test_the_grader_is_right_on_nearly_all_of_the_table_and_never_credits_a_wrong_answer(capsys: Any) -> None:
    cells = [
        (kind, gold, answer, verdict)
        for kind, rules in KINDS.items()
        for gold, right, wrong in number_rules.wrapped(rules(), emphasised)
        for verdict, answers in (("correct", right), ("wrong", wrong))
        for answer in answers
    ]
    assert len(cells) >= 1500
    items = [(Problem("1", "test", "maths", "?", gold), f"\\boxed{{{answer}}}", "stop") for _, gold, answer, _ in cells]
    with Grader(workers=2, maths_timeout_s=60.0) as grader:
        graded = grader.grade(items)
    total, good = Counter[str](), Counter[str]()
    false_positives, false_negatives = [], []
    for (kind, gold, answer, verdict), result in zip(cells, graded, strict=True):
        total[kind] += 1
        good[kind] += result.verdict == verdict
        if result.verdict != verdict:
            failures = false_positives if verdict == "wrong" and result.verdict == "correct" else false_negatives
            failures.append(f"{kind}: gold {gold!r}, answer {answer!r}: {result.verdict} {result.detail}")
    with capsys.disabled():
        print(*(f"\n  {kind:20} {good[kind] / total[kind]:7.1%} of {total[kind]}" for kind in KINDS), sep="")
        print(f"  {'all':20} {good.total() / total.total():7.1%} of {total.total()}")
    assert not false_positives, "\n".join(false_positives)
    assert good.total() / total.total() >= SHARE_RIGHT, "\n".join(false_negatives)
    assert {kind for kind in KINDS if good[kind] / total[kind] < 0.95} == set(), "\n".join(false_negatives)
