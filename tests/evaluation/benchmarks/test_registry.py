"""The benchmarks by name."""

from pathlib import Path

import pytest

from evaluation.benchmarks import get, names
from evaluation.loading import digest, load


def test_names() -> None:
    contests = {"aime24", "aime25", "amc23", "math500", "olympiadbench"}
    assert set(names()) == contests | {
        "gsm8k",
        "humaneval",
        "humaneval_plus",
        "mbpp",
        "mbpp_plus",
        "mbpp_sanitized",
        "noisy_word_problems",
        "rbench_t",
        "supergpqa",
        "tiny_code",
        "word_problems",
    }
    assert all(get(name).name == name for name in names())


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown benchmark 'aime2'; did you mean 'aime2[45]'"):
        get("aime2")
    with pytest.raises(ValueError, match="known: aime24, aime25, amc23"):
        get("zzz")


@pytest.mark.parametrize("name", ["humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "mbpp_sanitized"])
def test_code_problems_are_the_ones_this_project_was_checked_against(name: str, benchmark_data: Path) -> None:
    assert digest(load(get(name), "test", benchmark_data)) == get(name).digest is not None
