"""Grades the samples of every prompt and writes `rl.jsonl` with those that are neither too hard nor too easy."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from evaluation.grading import Grader
from evaluation.metrics.estimates import wilson_interval
from evaluation.records import Generation, Problem, RecordError, read_records, write_jsonl
from stages.data.documents import problems_path
from stages.difficulty.settings import DifficultySettings
from stages.grading.grade import Problems, check_grader_errors, check_isolation, grade, make_scores, read_generations
from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import write_json


def run(ctx: Context[DifficultySettings]) -> Result:
    """`inputs["generations"]` are samples of the prompts in `inputs["data"]`; writes rl.jsonl, pass_rates.jsonl and
    summary.json."""
    settings = ctx.settings
    try:
        generations = list(read_generations(ctx.inputs["generations"] / "generations.jsonl").values())
        names = list(dict.fromkeys(generation.benchmark for generation in generations))
        problems = {
            name: {p.id: p for p in read_records(problems_path(ctx.inputs["data"], name), Problem)} for name in names
        }
    except (RecordError, OSError) as error:
        raise StageError(
            f"the samples of the prompts cannot be read: {error}", "Run `vcore store verify`, then run again."
        ) from error
    right = _right(ctx, generations, problems)
    rates = {name: {p: fmean(right[name, p]) for p in problems[name]} for name in names}
    rows = [
        {"set": name, "problem_id": p, "samples": len(right[name, p]), "right": sum(right[name, p])}
        for name in names
        for p in problems[name]
    ]
    write_jsonl(ctx.output / "pass_rates.jsonl", rows)

    gated = "dev" if "dev" in names else "rl"
    gate = _check_gate(settings, gated, [right[gated, p] for p in problems[gated]])
    too_hard = [p for p, rate in rates["rl"].items() if settings.above is not None and rate <= settings.above]
    too_easy = [p for p, rate in rates["rl"].items() if settings.below is not None and rate >= settings.below]
    left_out = {*too_hard, *too_easy}
    learnable = [problem for problem in problems["rl"].values() if problem.id not in left_out]
    if not learnable:
        counts = f"{len(too_hard)} of {len(rates['rl'])} are too hard and {len(too_easy)} too easy for this checkpoint"
        fix = "Train SFT longer, take other prompts, or widen difficulty.above and difficulty.below."
        raise StageError(f"no prompt is left: {counts}", fix)
    write_jsonl(ctx.output / "rl.jsonl", learnable)
    pass_rate = fmean(rates["rl"].values())
    summary = {
        "prompts": len(rates["rl"]),
        "kept": len(learnable),
        "too_hard": len(too_hard),
        "too_easy": len(too_easy),
        "pass_rate": pass_rate,
        "gate": gate,
    }
    write_json(ctx.output / "summary.json", summary)
    headline = (
        f"{len(learnable)} of {len(rates['rl'])} prompts kept, {len(too_hard)} too hard, {len(too_easy)} too easy"
    )
    return Result(
        {"prompts": len(rates["rl"]), "kept": len(learnable)}, {"headline": headline, "pass_rate": round(pass_rate, 4)}
    )


def _right(
    ctx: Context[DifficultySettings], generations: list[Generation], problems: Problems
) -> dict[tuple[str, str], list[bool]]:
    """For each prompt, whether each of its samples is right. Raises StageError where the grader itself fails too
    often."""
    scoring = ctx.settings.scoring
    workers = scoring.workers or ctx.machine.threads
    limits = scoring.maths_timeout_s, scoring.code_timeout_s, scoring.memory_mib
    with Grader(workers, *limits, packages=scoring.packages) as grader:
        if any(problem.kind == "code" for of_set in problems.values() for problem in of_set.values()):
            check_isolation(grader, scoring)
        graded = grade(grader, generations, problems, lambda done: ctx.progress(done, len(generations), "grading"))
    scores = make_scores(generations, graded, problems)
    check_grader_errors(scores, scoring, problems)
    right: dict[tuple[str, str], list[bool]] = {}
    for score in scores:
        right.setdefault((score.benchmark, score.problem_id), []).append(score.verdict == "correct")
    return right


def _check_gate(settings: DifficultySettings, name: str, right: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """How much of `name` is solved, and whether RL may start. Raises StageError where it may not."""
    solved, rate = sum(map(any, right)), fmean(fmean(samples) for samples in right)
    low, high = wilson_interval(solved, len(right))
    share = solved / len(right)
    problems = f"{solved} of {len(right)} problems of {name} are solved in one of {settings.samples} samples"
    measured = f"{problems} (95 %: {low:.1%} to {high:.1%})"
    if settings.min_solved is not None and share < settings.min_solved:
        bound = f"fewer than the {settings.min_solved:.1%} of difficulty.min_solved: RL would find nothing to reward"
        raise StageError(f"{measured}, {bound}", "Train SFT longer or on more, or take easier prompts.")
    if settings.max_solved is not None and share > settings.max_solved:
        bound = f"more than the {settings.max_solved:.1%} of difficulty.max_solved: RL would find little to learn"
        raise StageError(f"{measured}, {bound}", "Take harder prompts.")
    bounds = {"solved_low": low, "solved_high": high}
    return {"set": name, "problems": len(right), "solved": solved, **bounds, "pass_rate": rate}
