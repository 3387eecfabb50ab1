"""The benchmarks by name."""

from __future__ import annotations

import difflib

from evaluation.benchmarks import (
    aime,
    aime25,
    amc,
    choice,
    gsm8k,
    humaneval,
    humaneval_plus,
    math500,
    mbpp,
    mbpp_plus,
    olympiadbench,
)
from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.generated import noisy_word_problems, tiny_code, word_problems

__all__ = ["BENCHMARKS", "Benchmark", "Source", "get"]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(
            module.BENCHMARK
            for module in (
                aime,
                aime25,
                amc,
                gsm8k,
                humaneval,
                humaneval_plus,
                math500,
                mbpp,
                mbpp_plus,
                noisy_word_problems,
                olympiadbench,
                tiny_code,
                word_problems,
            )
        ),
        mbpp.SANITIZED_BENCHMARK,
        choice.SUPERGPQA,
        choice.RBENCH,
    )
}


def get(name: str) -> Benchmark:
    """The benchmark called `name`. Raises `ValueError` that names the nearest ones."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    near = difflib.get_close_matches(name, BENCHMARKS, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(BENCHMARKS))}"
    raise ValueError(f"unknown benchmark {name!r}; {hint}")
