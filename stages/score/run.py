"""Grades the generations of one checkpoint: `scores.jsonl` and, with a number for each benchmark, `metrics.json`."""

from pathlib import Path
from typing import Any

from evaluation.graders.programs.tests import refusals
from evaluation.grading import Grader
from evaluation.records import Generation, Problem, RecordError, read_records, write_jsonl
from stages.data.documents import problems_path
from stages.grading.grade import (
    Problems,
    check_grader_errors,
    check_isolation,
    check_samples,
    grade,
    make_scores,
    read_generations,
)
from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import read_json, write_json
from stages.score.metrics import benchmark_metrics, compiler_of
from stages.score.settings import ScoreSettings


def run(ctx: Context[ScoreSettings]) -> Result:
    """The stage: every generation gets one verdict."""
    settings = ctx.settings
    folder = ctx.inputs["generations"]
    try:
        lines = read_generations(folder / "generations.jsonl")
        generations = list(lines.values())
        protocols: dict[str, dict[str, Any]] = read_json(folder / "summary.json")["protocol"]
        names = list(dict.fromkeys(generation.benchmark for generation in generations))
        problems = {name: _problems(problems_path(ctx.inputs["data"], name)) for name in names}
        check_complete(folder / "generations.jsonl", lines, problems, protocols)
    except (RecordError, OSError, KeyError, ValueError) as error:
        raise StageError(
            f"the generations cannot be scored: {_text(error)}", "Run the generate stage of this checkpoint again."
        ) from error
    workers = settings.workers or ctx.machine.threads
    limits = settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib
    with Grader(workers, *limits, packages=settings.packages) as grader:
        if any(problem.kind == "code" for name in names for problem in problems[name].values()):
            check_isolation(grader, settings)
            missing = f"; not protected: {'; '.join(grader.sandbox_unprotected)}" if grader.sandbox_unprotected else ""
            ctx.note(f"programs run with isolation level {grader.sandbox_level}{missing}")
        graded = grade(grader, generations, problems, lambda done: ctx.progress(done, len(generations), "grading"))
        scores = make_scores(generations, graded, problems)
        check_grader_errors(scores, settings, problems)
        metrics = {
            name: benchmark_metrics(
                [g for g in generations if g.benchmark == name],
                [s for s in scores if s.benchmark == name],
                next(iter(problems[name].values())).kind,
                protocols[name],
                settings,
                grader,
                compiler_of(problems[name].values()),
                refusals(problems[name].values()),
            )
            for name in names
        }
        for name, entry in metrics.items():
            if refused := entry.get("not_graded"):
                named = ", ".join(refused)
                ctx.note(f"{name}: {len(refused)} of {entry['n']} problems are not graded, and not right: {named}")
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


def check_complete(
    path: Path,
    generations: dict[int, Generation],
    problems: Problems,
    protocols: dict[str, dict[str, Any]],
) -> None:
    """`RecordError` unless every problem that the protocols promise has all its samples."""
    counts = check_samples(path, generations, problems)
    if set(protocols) != set(counts):
        raise RecordError(
            f"{path}: generations of {sorted(counts)}, but the summary's protocols are of {sorted(protocols)}"
        )
    for name, protocol in protocols.items():
        promised = list(problems[name])[: protocol["problems"]]
        missing = [problem_id for problem_id in promised if problem_id not in counts[name]]
        if missing or len(counts[name]) != protocol["problems"]:
            shown = f", {missing[0]} is missing" if missing else ""
            raise RecordError(
                f"{path}: {name}: {len(counts[name])} problems have generations, not {protocol['problems']}{shown}"
            )
        samples = next(iter(counts[name].values()))
        if samples != protocol["samples"]:
            raise RecordError(f"{path}: {name}: {samples} samples a problem, the protocol says {protocol['samples']}")


def _problems(path: Path) -> dict[str, Problem]:
    problems = {problem.id: problem for problem in read_records(path, Problem)}
    if not problems:
        raise RecordError(f"{path}: no problems")
    return problems


def _text(error: Exception) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)
