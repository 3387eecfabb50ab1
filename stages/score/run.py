"""Grades the generations of one checkpoint: `scores.jsonl` with a verdict on each, `metrics.json` with a number for each benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.graders.extraction import continue_prompt, whole_program
from evaluation.grading import Graded, Grader
from evaluation.records import Generation, Problem, RecordError, Score, read_records, read_rows, write_jsonl
from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import read_json, write_json
from stages.score.metrics import benchmark_metrics
from stages.score.settings import ScoreSettings


def run(ctx: Context[ScoreSettings]) -> Result:
    """The stage: every generation gets one verdict."""
    settings = ctx.settings
    folder = ctx.inputs["generations"]
    try:
        generations = read_generations(folder / "generations.jsonl")
        protocols: dict[str, dict[str, Any]] = read_json(folder / "summary.json")["protocol"]
        names = list(dict.fromkeys(generation.benchmark for generation in generations))
        problems = {name: _problems(ctx.inputs["data"] / "benchmarks" / f"{name}.jsonl") for name in names}
        check_complete(folder / "generations.jsonl", generations, problems, protocols)
    except (RecordError, OSError, KeyError, ValueError) as error:
        raise StageError(
            f"the generations cannot be scored: {_text(error)}", "Run the generate stage of this checkpoint again."
        ) from error
    workers = settings.workers or ctx.machine.threads
    with Grader(workers, settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib) as grader:
        if any(problem.kind == "code" for name in names for problem in problems[name].values()):
            check_isolation(grader, settings)
            missing = f"; not protected: {'; '.join(grader.sandbox_unprotected)}" if grader.sandbox_unprotected else ""
            ctx.note(f"programs run with isolation level {grader.sandbox_level}{missing}")
        graded = grade(grader, generations, problems, lambda done: ctx.progress(done, len(generations), "grading"))
        scores = make_scores(generations, graded, problems)
        check_grader_errors(scores, settings)
        metrics = {
            name: benchmark_metrics(
                [g for g in generations if g.benchmark == name],
                [s for s in scores if s.benchmark == name],
                next(iter(problems[name].values())).kind,
                protocols[name],
                settings,
                grader,
            )
            for name in names
        }
        level, unprotected, started = grader.sandbox_level, grader.sandbox_unprotected, grader.maths_workers_started
    n_scores = write_jsonl(ctx.output / "scores.jsonl", scores)
    write_json(ctx.output / "metrics.json", metrics)
    isolation = {"sandbox_level": level, "sandbox_unprotected": unprotected}
    write_json(ctx.record / "grading.json", isolation | {"workers": workers, "maths_workers_started": started})
    if n_scores != len(generations):
        raise StageError(
            f"{len(generations)} generations but {n_scores} scores", "This is a defect of the score stage."
        )
    headline = ", ".join(f"{name} {100 * m['value']:.1f} %" for name, m in metrics.items())
    return Result(
        {"generations": len(generations), "scores": n_scores},
        {"headline": headline, "sandbox_level": level or "not used"},
    )


def read_generations(path: Path) -> list[Generation]:
    """All generations; `RecordError` for a line that is none, and for a file without any."""
    generations = read_records(path, Generation)
    if not generations:
        raise RecordError(f"{path}: no generations")
    return generations


def check_samples(
    path: str | Path, generations: Sequence[Generation], problems: dict[str, dict[str, Problem]]
) -> dict[str, dict[str, int]]:
    """Number of samples of each problem of each benchmark.

    Raises `RecordError`, with the line, for a sample that occurs twice and for an unknown problem; and for unequal numbers of samples.
    """
    lines = [number for number, _ in read_rows(path)]
    seen: set[tuple[str, str, int]] = set()
    counts: dict[str, dict[str, int]] = {name: {} for name in problems}
    for line, generation in zip(lines, generations, strict=True):
        if generation.problem_id not in problems[generation.benchmark]:
            raise RecordError(f"{path}:{line}: {generation.benchmark} has no problem {generation.problem_id!r}")
        key = generation.benchmark, generation.problem_id, generation.sample
        if key in seen:
            raise RecordError(f"{path}:{line}: sample {generation.sample} of {generation.problem_id} occurs twice")
        seen.add(key)
        counts[generation.benchmark][generation.problem_id] = (
            counts[generation.benchmark].get(generation.problem_id, 0) + 1
        )
    for name, samples in counts.items():
        most = max(samples.values())
        for problem_id, count in samples.items():
            if count != most:
                raise RecordError(f"{path}: {name} {problem_id} has {count} samples, others have {most}")
    return counts


def check_complete(
    path: Path,
    generations: Sequence[Generation],
    problems: dict[str, dict[str, Problem]],
    protocols: dict[str, dict[str, Any]],
) -> None:
    """`RecordError` unless every problem that the protocols promise has all its samples."""
    counts = check_samples(path, generations, problems)
    if set(protocols) != set(counts):
        raise RecordError(
            f"{path}: generations of {sorted(counts)}, but the summary's protocols are of {sorted(protocols)}"
        )
    for name, protocol in protocols.items():
        wanted = list(problems[name])[: protocol["problems"]]
        missing = [problem_id for problem_id in wanted if problem_id not in counts[name]]
        if missing or len(counts[name]) != protocol["problems"]:
            shown = f", {missing[0]} is missing" if missing else ""
            raise RecordError(
                f"{path}: {name}: {len(counts[name])} problems have generations, not {protocol['problems']}{shown}"
            )
        samples = next(iter(counts[name].values()))
        if samples != protocol["samples"]:
            raise RecordError(f"{path}: {name}: {samples} samples a problem, the protocol says {protocol['samples']}")


def grade(
    grader: Grader,
    generations: Sequence[Generation],
    problems: dict[str, dict[str, Problem]],
    on_done: Callable[[int], None] | None = None,
) -> list[Graded]:
    """Verdicts in the order of the generations."""
    items = [
        (problem := problems[g.benchmark][g.problem_id], _answer(problem, g), g.finish_reason) for g in generations
    ]
    return grader.grade(items, on_done)


def _answer(problem: Problem, generation: Generation) -> str:
    """What is graded: the completion, with what the prompt began where the model went on with it."""
    if generation.prompt and generation.prompt == problem.meta.get("completion"):
        return whole_program(generation.prompt, generation.completion)
    return continue_prompt(generation.prompt, generation.completion)


def make_scores(
    generations: Sequence[Generation], graded: Sequence[Graded], problems: dict[str, dict[str, Problem]]
) -> list[Score]:
    """One score for each generation, in the same order."""
    return [
        Score(
            g.benchmark,
            g.problem_id,
            g.sample,
            r.verdict,
            r.extracted,
            problems[g.benchmark][g.problem_id].gold,
            r.detail,
        )
        for g, r in zip(generations, graded, strict=True)
    ]


def check_grader_errors(scores: Sequence[Score], settings: ScoreSettings) -> None:
    """`StageError` where the grader itself failed on more than the allowed share of any benchmark."""
    totals = Counter(score.benchmark for score in scores)
    failed: dict[str, list[Score]] = {}
    for score in scores:
        if score.verdict == "grader_error":
            failed.setdefault(score.benchmark, []).append(score)
    for name, errors in failed.items():
        if len(errors) > settings.max_grader_error_share * totals[name]:
            raise StageError(
                f"the grader failed on {len(errors)} of {totals[name]} generations of {name}; "
                f"the first: {errors[0].problem_id}: {errors[0].detail}",
                "Mend what the message names; score.max_grader_error_share is the share that may fail.",
            )


def check_isolation(grader: Grader, settings: ScoreSettings) -> None:
    """Start the sandbox. `StageError` where the machine offers less isolation than the settings ask."""
    level = grader.start_sandbox()
    if settings.require_sandbox == "namespaces" and level != "namespaces":
        raise StageError(
            f"programs could only be run at isolation level {level}: this machine does not let users make namespaces",
            "Score on another machine, allow user namespaces, or set score.require_sandbox: rlimits if you trust the model.",
        )


def _problems(path: Path) -> dict[str, Problem]:
    problems = {problem.id: problem for problem in read_records(path, Problem)}
    if not problems:
        raise RecordError(f"{path}: no problems")
    return problems


def _text(error: Exception) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)
