"""What became of every sample that a score artifact judged, read fast: a history looks at hundreds of artifacts.

A score artifact is published with `record/outcomes.json`, a letter a sample, which is about thirty times smaller than
scores.jsonl. It names the digest of the scores.jsonl that it was made of, and counts only where the manifest has that
digest: a summary of other scores is never believed. Artifacts from before have none; of theirs the first columns of
scores.jsonl are read.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.records import RecordError, Score, read_records
from pipeline.core.errors import StoreError
from stages.harness.documents import Document

if TYPE_CHECKING:
    from pipeline.store.store import Artifact

SCORES, SUMMARY = "scores.jsonl", "record/outcomes.json"
LETTERS = {"correct": "c", "wrong": "w", "no_answer": "n", "timeout": "t", "grader_error": "e"}
"""Verdict -> the letter that stands for it."""
_ROW = re.compile(
    rb'^\{"benchmark": "([^"\\]*)", "problem_id": "([^"\\]*)", "sample": (\d+), "verdict": "(\w+)", ', re.MULTILINE
)
"""The first columns of a row of scores.jsonl as the score stage writes it."""
_SEPARATOR = " "


@dataclasses.dataclass(frozen=True, slots=True)
class Outcomes:
    """The verdicts on one checkpoint's samples of one benchmark.

    Attributes:
        problems: ids, in the order of the benchmark.
        verdicts: of each problem, a letter a sample in the order of the samples; `LETTERS` says which.
    """

    problems: tuple[str, ...]
    verdicts: tuple[str, ...]

    def shares(self) -> list[float]:
        """Of each problem, the share of its samples that are right."""
        known = {verdicts: verdicts.count("c") / len(verdicts) for verdicts in set(self.verdicts)}
        return [known[verdicts] for verdicts in self.verdicts]


class _Listed(Document):
    """One benchmark in the summary: ids of problems, and their verdicts with a space between problems."""

    problems: list[str]
    verdicts: str


class _Summary(Document):
    """`record/outcomes.json`."""

    scores: str
    """sha256 of the scores.jsonl that this was made of."""
    benchmarks: dict[str, _Listed]


def load_outcomes(artifact: Artifact) -> dict[str, Outcomes]:
    """Benchmark -> outcomes, of a score artifact that the store has found, and so checked.

    Raises:
        StoreError: it has no scores, or they cannot be read.
    """
    digests = {entry.path: entry.sha256 for entry in artifact.manifest.files}
    if SCORES not in digests:
        raise StoreError(f"there is no {SCORES} in it", where=str(artifact.folder), fix="Run its score stage again.")
    if SUMMARY in digests:
        summary = _Summary.read(artifact.folder / SUMMARY)
        if summary is not None and summary.scores == digests[SCORES]:
            return {name: _shared(listed) for name, listed in summary.benchmarks.items()}
    try:
        return read_outcomes(artifact.folder / SCORES)
    except (OSError, RecordError) as error:
        raise StoreError(
            f"its scores cannot be read: {error}", where=str(artifact.folder), fix="Run its score stage again."
        ) from error


def read_outcomes(file: Path) -> dict[str, Outcomes]:
    """Benchmark -> outcomes, of a scores.jsonl. Raises `OSError`, or `RecordError` for a row that is no score or the
    second of one sample."""
    verdicts: dict[str, dict[str, dict[int, str]]] = {}
    for benchmark, problem, sample, letter in _rows(file):
        of_problem = verdicts.setdefault(benchmark, {}).setdefault(problem, {})
        if sample in of_problem:
            raise RecordError(f"{file}: sample {sample} of {benchmark} {problem} occurs twice")
        of_problem[sample] = letter
    return {
        benchmark: Outcomes(
            tuple(map(sys.intern, problems)),
            tuple(sys.intern("".join(letters[sample] for sample in sorted(letters))) for letters in problems.values()),
        )
        for benchmark, problems in verdicts.items()
    }


def write_summary(folder: Path, digest: str) -> None:
    """Write the summary of the scores.jsonl with this digest in an artifact's folder."""
    listed = {
        name: _Listed(problems=list(outcomes.problems), verdicts=_SEPARATOR.join(outcomes.verdicts))
        for name, outcomes in read_outcomes(folder / SCORES).items()
    }
    (folder / SUMMARY).parent.mkdir(exist_ok=True)
    text = json.dumps(_Summary(scores=digest, benchmarks=listed).to_json())
    (folder / SUMMARY).write_text(text, encoding="ascii")  # half a surrogate pair in a name, too, has a form in that


def _rows(file: Path) -> Iterator[tuple[str, str, int, str]]:
    """(benchmark, problem, sample, letter) of every row. Where not every line begins as the score stage writes it, each
    is read as a record."""
    text = file.read_bytes()
    found = _ROW.findall(text)
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(found) != lines or any(verdict.decode() not in LETTERS for verdict in {row[3] for row in found}):
        for score in read_records(file, Score):
            yield score.benchmark, score.problem_id, score.sample, LETTERS[score.verdict]
        return
    letters = {verdict.encode(): letter for verdict, letter in LETTERS.items()}
    for benchmark, problem, sample, verdict in found:
        yield benchmark.decode(), problem.decode(), int(sample), letters[verdict]


def _shared(listed: _Listed) -> Outcomes:
    """The outcomes with each text once in memory: hundreds of artifacts have the same problems."""
    return Outcomes(_interned(listed.problems), _interned(listed.verdicts.split(_SEPARATOR)))


def _interned(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(sys.intern, texts))
