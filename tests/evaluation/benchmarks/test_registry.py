"""The benchmarks by name."""

import pytest

from evaluation.benchmarks import BENCHMARKS, get


def test_names() -> None:
    assert set(BENCHMARKS) == {"aime24", "amc23", "gsm8k", "humaneval_plus", "mbpp", "tiny_code", "word_problems"}
    assert all(get(name).name == name for name in BENCHMARKS)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown benchmark 'aime2'; did you mean aime24"):
        get("aime2")
    with pytest.raises(ValueError, match="known: aime24, amc23"):
        get("zzz")
