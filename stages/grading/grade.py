"""Grading the generations of a checkpoint: reading, checks, verdicts, and an end where the grader itself fails."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.graders.extraction import continue_prompt, whole_program
from evaluation.graders.programs.tests import refusals
from evaluation.grading import Graded, Grader
from evaluation.records import Generation, Problem, RecordError, Score, make_record, read_rows
from evaluation.sandbox import Level, SandboxError
from stages.harness.context import StageError
from stages.score.settings import ScoreSettings

Problems = dict[str, dict[str, Problem]]
"""Benchmark -> id -> problem."""


def read_generations(path: Path) -> dict[int, Generation]:
    """All generations by their lines. Raises `RecordError` for a line that is none, and for a file without any."""
    generations = {line: make_record(row, Generation, f"{path}:{line}") for line, row in read_rows(path)}
    if not generations:
        raise RecordError(f"{path}: no generations")
    return generations


def check_samples(
    path: str | Path, generations: dict[int, Generation], problems: Problems
) -> dict[str, dict[str, int]]:
    """The number of samples of each problem of each benchmark.

    Args:
        path: the file that they were read from, for messages.
        generations: by their lines.

    Raises:
        RecordError: a sample occurs twice or is of an unknown problem (its line is named), or problems of a benchmark
            have different numbers of samples.
    """
    seen: set[tuple[str, str, int]] = set()
    counts: dict[str, Counter[str]] = {name: Counter() for name in problems}
    for line, generation in generations.items():
        if generation.problem_id not in problems[generation.benchmark]:
            raise RecordError(f"{path}:{line}: {generation.benchmark} has no problem {generation.problem_id!r}")
        key = generation.benchmark, generation.problem_id, generation.sample
        if key in seen:
            raise RecordError(f"{path}:{line}: sample {generation.sample} of {generation.problem_id} occurs twice")
        seen.add(key)
        counts[generation.benchmark][generation.problem_id] += 1
    for name, samples in counts.items():
        most = max(samples.values())
        for problem_id, count in samples.items():
            if count != most:
                raise RecordError(f"{path}: {name} {problem_id} has {count} samples, others have {most}")
    return {name: dict(samples) for name, samples in counts.items()}


def grade(
    grader: Grader,
    generations: Sequence[Generation],
    problems: Problems,
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


def make_scores(generations: Sequence[Generation], graded: Sequence[Graded], problems: Problems) -> list[Score]:
    """One score for each generation, in the same order."""
    scores = []
    for g, result in zip(generations, graded, strict=True):
        gold = problems[g.benchmark][g.problem_id].gold
        verdict = result.verdict, result.extracted, gold, result.detail
        scores.append(Score(g.benchmark, g.problem_id, g.sample, *verdict))
    return scores


def check_grader_errors(scores: Sequence[Score], settings: ScoreSettings, problems: Problems) -> None:
    """`StageError` where the grader itself failed on more than the allowed share of any benchmark. Problems that are
    refused by name are no failure: which these are is known before anything is sampled."""
    refused = {(name, one) for name, of_set in problems.items() for one in refusals(of_set.values())}
    totals: Counter[str] = Counter()
    failed: dict[str, list[Score]] = {}
    for score in scores:
        if (score.benchmark, score.problem_id) not in refused:
            totals[score.benchmark] += 1
            if score.verdict == "grader_error":
                failed.setdefault(score.benchmark, []).append(score)
    for name, errors in failed.items():
        if len(errors) > settings.max_grader_error_share * totals[name]:
            raise StageError(
                f"the grader failed on {len(errors)} of {totals[name]} generations of {name}; "
                f"the first: {errors[0].problem_id}: {errors[0].detail}",
                "Put right what the message names; score.max_grader_error_share is the share that may fail.",
            )


def start_sandbox(grader: Grader) -> Level:
    """How programs will be isolated. `StageError` where none can be run, or not with the packages that are asked
    for."""
    try:
        return grader.start_sandbox()
    except SandboxError as error:
        raise StageError(f"no programs can be run: {error}", "vcore doctor says what the machine lacks.") from error


def check_isolation(grader: Grader, settings: ScoreSettings) -> None:
    """Start the sandbox. `StageError` where it does not run, or the machine offers less isolation than the settings
    ask."""
    level = start_sandbox(grader)
    if settings.require_sandbox == "namespaces" and level != "namespaces":
        raise StageError(
            f"programs could only be run at isolation level {level}: this machine does not let users make namespaces",
            "Score on another machine, allow user namespaces, or set score.require_sandbox: rlimits if you trust the "
            "model.",
        )
