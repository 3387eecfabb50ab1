"""Training questions that are problems of the benchmarks a pipeline evaluates, or hold long parts of one."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from evaluation.benchmarks import get, names
from stages.data.questions import Question, words

BOILERPLATE = 3
"""Runs of words that so many problems of one benchmark share (or all of a smaller one) are its instruction."""

Place = tuple[str, str]
"""Benchmark and id of a problem."""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A training row (its id) and the problem that it overlaps with; `shared` is the first run of words that both have,
    empty where they are equal."""

    training: str
    benchmark: str
    problem: str
    shared: str = ""

    def __str__(self) -> str:
        return f"{self.training} {'holds part of' if self.shared else '='} {self.benchmark} {self.problem}"


class ReportedQuestions:
    """The questions whose scores are reported, made ready to be looked for."""

    def __init__(self, benchmarks: Mapping[str, Mapping[str, Question]], ngram: int | None) -> None:
        """Runs of `ngram` words (None: none) are looked for in benchmarks of real data only: generated ones are
        disjoint by construction, and all their problems are alike.

        Args:
            benchmarks: name -> id of a problem -> what it asks.
        """
        self._ngram = ngram
        self._equal: dict[Question, Place] = {}
        self._runs: dict[Question, Place] = {}
        for name, problems in benchmarks.items():
            self._equal |= {asked: (name, id) for id, asked in problems.items() if asked}
            if ngram is not None and (name not in names() or get(name).generate is None):
                self._runs |= {run: (name, id) for run, id in _own_runs(problems, ngram).items()}

    def find(self, training: Mapping[str, Sequence[Question]]) -> list[Hit]:
        """Every row (by its id) with a question that equals a problem, case, punctuation and spacing aside, or shares a
        run of words with one."""
        found = ((row, next(filter(None, map(self._place, questions)), None)) for row, questions in training.items())
        return [Hit(row, *hit) for row, hit in found if hit is not None]

    def _place(self, asked: Question) -> tuple[str, str, str] | None:
        """Benchmark, problem and shared run of words (empty where equal) of a question that is to be found."""
        if asked in self._equal:
            return (*self._equal[asked], "")
        if self._ngram is None:
            return None
        shared = next((run for run in _runs(words(asked), self._ngram) if run in self._runs), None)
        return None if shared is None else (*self._runs[shared], " ".join(shared))


def _runs(spoken: Question, length: int) -> Iterator[Question]:
    return (spoken[start : start + length] for start in range(len(spoken) - length + 1))


def _own_runs(problems: Mapping[str, Question], length: int) -> dict[Question, str]:
    """Run of words -> the problem it is from, without those that several problems share."""
    origins: dict[Question, str] = {}
    counts: Counter[Question] = Counter()
    for problem, asked in problems.items():
        for run in set(_runs(words(asked), length)):
            counts[run] += 1
            origins[run] = problem
    shared = min(BOILERPLATE, max(2, len(problems)))
    return {run: problem for run, problem in origins.items() if counts[run] < shared}
