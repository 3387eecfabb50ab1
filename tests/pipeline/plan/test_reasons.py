"""Reasons: how a difference between two pre-images is told."""

from pipeline.plan.reasons import differences
from pipeline.store.documents import Preimage


def test_lists_that_grew_are_told_by_their_length() -> None:
    benchmark = {"name": "word_problems", "own": None, "split": "test"}
    one, two = (Preimage(settings={"benchmarks": [benchmark] * count}) for count in (1, 2))
    assert differences(one, two) == ["settings.benchmarks 1 → 2 entries"]


def test_values_in_lists_of_one_length_are_told_one_by_one() -> None:
    one, two = (Preimage(settings={"sft": [{"rows": rows}, {"rows": 3}]}) for rows in (1, 2))
    assert differences(one, two) == ["settings.sft.0.rows 1 → 2"]
