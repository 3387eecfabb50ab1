"""The samples of a score artifact as data files: short columns to filter by, and the texts in chunks, read when one is
opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.records import Generation, RecordError, Score, read_records, read_rows
from pipeline.browse.data_files import write_data
from pipeline.store.scores import LETTERS
from pipeline.store.store import Artifact
from stages.data.documents import problems_path
from stages.report.render.text import shorten

MOST_CHARACTERS = 40_000
"""Of one text; of a longer one the middle is left out."""
COLUMN_CHARACTERS = 80
CHUNK_ROWS, CHUNK_CHARACTERS = 200, 300_000
"""A chunk of texts ends with whichever comes first."""
_ENDINGS = {"stop": "s", "length": "l", "prompt_too_long": "p", "unknown": "u"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A score artifact with what it was made from, as far as that is still in the store."""

    score: Artifact
    generations: Artifact | None
    data: Artifact | None


@dataclasses.dataclass
class _Sample:
    score: Score
    generation: Generation | None


def write_samples(source: Source, numbers: dict[str, int], folder: Path) -> dict[str, int]:
    """Write the samples of a score artifact.

    Args:
        numbers: benchmark -> number of its score in the site, which names the files.
        folder: where the data files go.

    Returns:
        Benchmark -> number of samples.

    Raises:
        OSError, RecordError: a file cannot be read, or is no file of records.
    """
    generations: dict[tuple[str, str, int], Generation] = {}
    if source.generations is not None:
        rows = read_records(source.generations.folder / "generations.jsonl", Generation)
        generations = {(g.benchmark, g.problem_id, g.sample): g for g in rows}
    samples: dict[str, list[_Sample]] = {}
    for score in read_records(source.score.folder / "scores.jsonl", Score):
        generation = generations.get((score.benchmark, score.problem_id, score.sample))
        samples.setdefault(score.benchmark, []).append(_Sample(score, generation))
    for benchmark, of_benchmark in samples.items():
        if benchmark not in numbers:
            raise RecordError(f"scores of {benchmark}, which metrics.json does not name")
        questions = _questions(source.data, benchmark)
        _write(of_benchmark, questions, numbers[benchmark], folder)
    return {benchmark: len(of_benchmark) for benchmark, of_benchmark in samples.items()}


def _write(samples: list[_Sample], questions: dict[str, str], number: int, folder: Path) -> None:
    places: dict[str, int] = {}
    for sample in samples:
        places.setdefault(sample.score.problem_id, len(places))
    samples = sorted(samples, key=lambda s: (places[s.score.problem_id], s.score.sample))
    golds = {sample.score.problem_id: sample.score.gold for sample in samples}
    starts: list[int] = []
    for chunk, (start, rows) in enumerate(_chunks(samples)):
        starts.append(start)
        write_data(folder, f"t{number}-{chunk}", _texts(rows, questions))
    columns = {
        "problems": [[name, _line(questions.get(name, "")), _line(golds[name])] for name in places],
        "problem": [places[s.score.problem_id] for s in samples],
        "sample": [s.score.sample for s in samples],
        "verdict": "".join(LETTERS[s.score.verdict] for s in samples),
        "ending": "".join(_ENDINGS.get(s.generation.finish_reason, "u") if s.generation else "u" for s in samples),
        "tokens": [s.generation.completion_tokens if s.generation else -1 for s in samples],
        "extracted": [None if s.score.extracted is None else _line(s.score.extracted) for s in samples],
        "starts": starts,
    }
    write_data(folder, f"c{number}", columns)


def _chunks(samples: list[_Sample]) -> Iterator[tuple[int, list[_Sample]]]:
    """(number of its first sample, samples) of each chunk."""
    start, characters = 0, 0
    for place, sample in enumerate(samples):
        length = len(sample.generation.completion) if sample.generation is not None else 0
        if place > start and (place - start >= CHUNK_ROWS or characters + length > CHUNK_CHARACTERS):
            yield start, samples[start:place]
            start, characters = place, 0
        characters += length
    if samples:
        yield start, samples[start:]


def _texts(samples: list[_Sample], questions: dict[str, str]) -> dict[str, Any]:
    """Prompts and questions once, then of each sample their places, completion, extracted answer, gold and detail."""
    shared: dict[str, int] = {}

    def place(text: str) -> int:
        return shared.setdefault(shorten(text, MOST_CHARACTERS), len(shared))

    rows = [
        [
            place(questions.get(s.score.problem_id, "")),
            place(s.generation.prompt) if s.generation is not None else None,
            shorten(s.generation.completion, MOST_CHARACTERS) if s.generation is not None else None,
            s.score.extracted if s.score.extracted is None else shorten(s.score.extracted, MOST_CHARACTERS),
            place(s.score.gold),
            shorten(s.score.detail, MOST_CHARACTERS),
        ]
        for s in samples
    ]
    return {"rows": rows, "texts": list(shared)}


def _questions(data: Artifact | None, benchmark: str) -> dict[str, str]:
    """Problem -> what it asks, from the problems of the data artifact."""
    if data is None or not (file := problems_path(data.folder, benchmark)).is_file():
        return {}
    return {str(row.get("id")): str(row.get("prompt", "")) for _, row in read_rows(file)}


def _line(text: str) -> str:
    """The beginning of a text on one line, for a column, with ⏎ where a line of it ended: of a program, a comment."""
    lines = (" ".join(line.split()) for line in text[: 2 * COLUMN_CHARACTERS].splitlines())
    return " ⏎ ".join(filter(None, lines))[:COLUMN_CHARACTERS]
