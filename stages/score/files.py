"""Scoring of generations that were made elsewhere: complete records, plain rows, evalplus' samples, or rows with their own gold answer."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from evaluation.benchmarks import get
from evaluation.grading import Grader
from evaluation.loading import LoadError, digest, load
from evaluation.records import Generation, Kind, Problem, RecordError, Score, read_records, read_rows
from stages.score.metrics import benchmark_metrics
from stages.score.run import check_grader_errors, check_isolation, check_samples, grade, make_scores
from stages.score.settings import ScoreSettings

MATHS = "maths"
"""In place of a benchmark's name: the rows bring their own gold answers."""
FINISH_REASONS = ("stop", "length", "prompt_too_long")

Scored = tuple[dict[str, Any], list[Score]]


def score_file(
    benchmark: str, path: str | Path, data: str | Path | None = None, partial: bool = False, settings: ScoreSettings | None = None
) -> Scored:
    """Score a file of generations from anywhere against a benchmark's test split.

    Lines are complete `Generation` records; or {problem_id, completion}, with sample and finish_reason where they are known; or {task_id,
    solution} as evalplus writes them. Several rows of one problem without a sample number are its samples in order.

    Args:
        benchmark: its name, or `maths` for rows that bring their own `gold`.
        data: folder with local copies of the benchmarks, or this benchmark's own file; None asks the hub.
        partial: whether the file may leave problems out.

    Returns:
        The benchmark's metrics, as in `metrics.json` and with `missing`, the number of the test split's problems that the file does not
        answer (the metrics are over the others), `problems_digest` and `pinned_digest` (None where none is known), and the scores in
        the order of the file.

    Raises:
        ValueError: unknown benchmark, or one that is generated and so has no fixed test split.
        evaluation.loading.LoadError: the benchmark's problems cannot be had.
        RecordError: a line is no record, repeats a sample or names an unknown problem; problems are missing, or have different numbers
            of samples.
        StageError: the grader itself failed on too many, or the sandbox is weaker than the settings ask.
    """
    settings = settings or ScoreSettings()
    if benchmark == MATHS:
        generations, problems = read_own_golds(Path(path))
        kind: Kind = "maths"
    else:
        kind = get(benchmark).kind
        problems = {problem.id: problem for problem in _load(benchmark, data)}
        generations = read_any(benchmark, Path(path))
    known = {benchmark: problems}
    missing = [name for name in problems if name not in check_samples(path, generations, known)[benchmark]]
    if missing and not partial:
        raise RecordError(
            f"{path}: {len(missing)} of the {len(problems)} problems of {benchmark} have no generation ({missing[0]} is the first); "
            "--partial scores the others"
        )
    found = digest(problems.values())
    sampling = {"name": benchmark, "generations": "made elsewhere", "problems": len(problems) - len(missing), "problems_digest": found}
    with Grader(settings.workers or 2, settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib) as grader:
        if kind == "code":
            check_isolation(grader, settings)
        scores = make_scores(generations, grade(grader, generations, known), known)
        check_grader_errors(scores, settings)
        metrics = benchmark_metrics(generations, scores, kind, sampling, settings, grader)
    pinned = None if benchmark == MATHS else get(benchmark).digest
    return metrics | {"missing": len(missing), "problems_digest": found, "pinned_digest": pinned}, scores


def _load(benchmark: str, data: str | Path | None) -> list[Problem]:
    if data is None or Path(data).is_dir() or not Path(data).exists():
        return load(get(benchmark), "test", data)
    parse = get(benchmark).parse
    if parse is None:
        raise LoadError(f"{benchmark} is generated: it has no file")
    return parse("test", (row for _, row in read_rows(data)))


def read_any(benchmark: str, path: Path) -> list[Generation]:
    """Complete records, or shorter rows filled up with what is neutral for a score."""
    rows = list(read_rows(path))
    if not rows:
        raise RecordError(f"{path}: no generations")
    names = {field.name for field in dataclasses.fields(Generation)}
    if all(names == row.keys() for _, row in rows):
        generations = read_records(path, Generation)
        for (number, _), generation in zip(rows, generations, strict=True):
            if generation.benchmark != benchmark:
                raise RecordError(f"{path}:{number}: a generation of {generation.benchmark}, not of {benchmark}")
        return generations
    evalplus = {"task_id", "solution"}
    if all(evalplus <= row.keys() for _, row in rows):
        # evalplus' ids are those of HumanEval+; of plain MBPP they are the numbers with a prefix.
        prefix = "Mbpp/" if benchmark == "mbpp" else ""
        rows = [
            (n, {"problem_id": str(row["task_id"]).removeprefix(prefix), "completion": row["solution"], **_without(row, evalplus)})
            for n, row in rows
        ]
        return _fill(benchmark, path, rows, ignored={"_identifier", "dbg_identifier"})
    return _fill(benchmark, path, rows)


def read_own_golds(path: Path) -> tuple[list[Generation], dict[str, Problem]]:
    """Rows {problem_id, completion, gold}; the rows of one problem must agree on its gold answer."""
    rows = list(read_rows(path))
    if not rows:
        raise RecordError(f"{path}: no generations")
    problems: dict[str, Problem] = {}
    for number, row in rows:
        name, gold = row.get("problem_id"), row.get("gold")
        if not isinstance(name, str) or not isinstance(gold, str) or not gold.strip():
            raise RecordError(f"{path}:{number}: problem_id and gold must be text, and not empty")
        known = problems.setdefault(name, Problem(name, MATHS, "maths", "", gold))
        if known.gold != gold:
            raise RecordError(f"{path}:{number}: the gold answer of {name} is {gold!r} here and {known.gold!r} before")
    return _fill(MATHS, path, [(number, _without(row, {"gold"})) for number, row in rows]), problems


def _fill(benchmark: str, path: Path, rows: list[tuple[int, dict[str, Any]]], ignored: set[str] | None = None) -> list[Generation]:
    required, optional = {"problem_id", "completion"}, {"sample", "finish_reason"} | (ignored or set())
    out: list[Generation] = []
    counts: Counter[str] = Counter()
    for number, row in rows:
        missing, unknown = required - row.keys(), row.keys() - required - optional
        if missing or unknown:
            parts = [f"missing {sorted(missing)}"] * bool(missing) + [f"unknown {sorted(unknown)}"] * bool(unknown)
            raise RecordError(f"{path}:{number}: neither a Generation nor a row {sorted(required)}: {', '.join(parts)}")
        problem_id, completion = row["problem_id"], row["completion"]
        sample = row.get("sample", counts[problem_id]) if isinstance(problem_id, str) else None
        if not isinstance(sample, int) or not isinstance(completion, str):
            raise RecordError(f"{path}:{number}: problem_id and completion must be text, sample a whole number")
        finish_reason = row.get("finish_reason", "stop")
        if finish_reason not in FINISH_REASONS:
            raise RecordError(f"{path}:{number}: finish_reason is {finish_reason!r}, not one of {', '.join(FINISH_REASONS)}")
        out.append(Generation(benchmark, problem_id, sample, "", completion, finish_reason, 0, 0, None))
        counts[problem_id] += 1
    return out


def _without(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
