"""Training prompts that are problems of the benchmarks a pipeline evaluates, or hold long parts of one."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from evaluation.benchmarks import BENCHMARKS
from evaluation.records import Problem

BOILERPLATE = 3
"""Runs of words that so many problems of one benchmark share are its instruction, not a problem."""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A training prompt (its id) and the problem that it overlaps with; `shared` is the first run of words that both have, empty where
    they are equal."""

    training: str
    benchmark: str
    problem: str
    shared: str = ""

    def __str__(self) -> str:
        return f"{self.training} {'holds part of' if self.shared else '='} {self.benchmark} {self.problem}"


def find_overlap(prompts: Mapping[str, str], benchmarks: Mapping[str, Sequence[Problem]], ngram: int | None) -> list[Hit]:
    """Every training prompt that equals a problem, or shares a run of `ngram` words with one, case, punctuation and spacing aside.

    Runs are looked for in benchmarks of real data only: generated ones are disjoint by construction, and all their problems are alike.

    Args:
        prompts: id -> prompt of the training rows.
        benchmarks: name -> problems.
    """
    equal = {" ".join(words(p.prompt)): p for problems in benchmarks.values() for p in problems}
    runs: dict[str, Problem] = {}
    if ngram is not None:
        for name, problems in benchmarks.items():
            if name not in BENCHMARKS or BENCHMARKS[name].generate is None:
                runs |= _own_runs(problems, ngram)
    hits = []
    for training, prompt in prompts.items():
        spoken = words(prompt)
        same = equal.get(" ".join(spoken))
        if same is not None:
            hits.append(Hit(training, same.benchmark, same.id))
            continue
        shared = next((run for run in _runs(spoken, ngram) if run in runs), None) if ngram is not None else None
        if shared is not None:
            hits.append(Hit(training, runs[shared].benchmark, runs[shared].id, shared))
    return hits


def words(text: str) -> list[str]:
    """Words and numbers, without case."""
    return re.sub(r"[\W_]+", " ", text).casefold().split()


def _runs(spoken: list[str], length: int) -> Iterator[str]:
    return (" ".join(spoken[start : start + length]) for start in range(len(spoken) - length + 1))


def _own_runs(problems: Sequence[Problem], length: int) -> dict[str, Problem]:
    """Run of words -> the problem it is from, without those that several problems share."""
    found: dict[str, Problem] = {}
    counts: Counter[str] = Counter()
    for problem in problems:
        for run in set(_runs(words(problem.prompt), length)):
            counts[run] += 1
            found[run] = problem
    return {run: problem for run, problem in found.items() if counts[run] < BOILERPLATE}
