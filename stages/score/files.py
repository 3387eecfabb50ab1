"""Scoring of generations from elsewhere: records, plain rows, evalplus' samples, or rows with their own gold answer."""

import os
from pathlib import Path
from typing import Any

from evaluation.benchmarks import get
from evaluation.graders.programs.tests import refusals
from evaluation.grading import Grader
from evaluation.loading import LoadError, digest, load, read_file
from evaluation.records import Kind, Problem, RecordError, Score
from evaluation.second_opinion import second_opinion
from stages.grading.grade import check_grader_errors, check_isolation, check_samples, grade, make_scores
from stages.score.metrics import benchmark_metrics, compiler_of
from stages.score.rows import OWN_GOLDS, read_any, read_own_golds
from stages.score.settings import ScoreSettings

Scored = tuple[dict[str, Any], list[Score]]


def score_file(
    benchmark: str,
    path: str | Path,
    data: str | Path | None = None,
    partial: bool = False,
    settings: ScoreSettings | None = None,
    second: bool = False,
    *,
    count: int | None = None,
    seed: int | None = None,
) -> Scored:
    """Score a file of generations from anywhere against a benchmark's test split.

    Args:
        benchmark: its name, or `maths` for rows that bring their own `gold`.
        path: one JSON object a line; `stages.score.rows` says in which forms.
        data: folder with local copies of the benchmarks, or this benchmark's own file; None asks the hub.
        partial: whether the file may leave problems out, and hold rows of a benchmark that shares some of the prompts.
        second: whether to ask for a second opinion, for maths only.
        count: only so many problems, the first ones; a generated benchmark, which makes so many, needs it.
        seed: of generated problems; None takes 0, as a config does.

    Returns:
        The benchmark's metrics, as in `metrics.json`, and the scores in the order of the file. The metrics have
        besides: `missing`, the number of the test split's problems that the file does not answer (the numbers are over
        the others); `problems_digest` and `pinned_digest` (None where none is known); `ignored_fields`;
        `left_out`, the rows of another benchmark whose prompts this one does not have;
        `finish_unknown`, the samples of which nobody said whether they were cut; `sandbox_level` and
        `sandbox_unprotected` (None and empty where no program ran); and with `second`, `second_opinion`, as
        `evaluation.second_opinion` returns it.

    Raises:
        ValueError: unknown benchmark, one that is generated without `count`, `count` or `seed` for what leaves no such
            choice, or `second` for another kind than maths.
        evaluation.loading.LoadError: the benchmark's problems cannot be loaded.
        RecordError: a line is no record, repeats a sample or names an unknown problem; problems are missing, or have
            different numbers of samples.
        StageError: the grader itself failed on too many, or the sandbox is weaker than the settings ask.
    """
    settings = settings or ScoreSettings()
    made = benchmark != OWN_GOLDS and get(benchmark).generate is not None
    if benchmark == OWN_GOLDS and count is not None:
        raise ValueError("rows that bring their own gold are all the problems there are; leave --problems out")
    if seed is not None and not made:
        raise ValueError(f"{benchmark}: its problems are not generated; leave --problem-seed out")
    if made and count is None:
        raise ValueError(f"{benchmark} is generated: say how many problems, as they were sampled: --problems N")
    if benchmark == OWN_GOLDS:
        read, problems = read_own_golds(Path(path))
        kind: Kind = "maths"
    else:
        kind = get(benchmark).kind
        if second and kind != "maths":
            raise ValueError(f"{benchmark}: there is a second opinion on maths only; leave --second-opinion out")
        problems = {problem.id: problem for problem in _load(benchmark, data, count, seed or 0)}
        read = read_any(benchmark, Path(path), problems, partial)
    generations, known = list(read.generations.values()), {benchmark: problems}
    answered = check_samples(path, read.generations, known)[benchmark]
    missing = [name for name in problems if name not in answered]
    if missing and not partial:
        gap = f"{len(missing)} of the {len(problems)} problems of {benchmark} have no generation"
        raise RecordError(f"{path}: {gap} ({missing[0]} is the first); --partial scores the others")
    sampling: dict[str, Any] = {"name": benchmark, "generations": "made elsewhere", "problems": len(answered)}
    sampling["problems_digest"] = digest(problems.values())
    workers = settings.workers or len(os.sched_getaffinity(0))
    limits = settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib
    with Grader(workers, *limits, packages=settings.packages) as grader:
        if kind == "code":
            check_isolation(grader, settings)
        scores = make_scores(generations, grade(grader, generations, known), known)
        check_grader_errors(scores, settings, known)
        compiler, not_graded = compiler_of(problems.values()), refusals(problems.values())
        metrics = benchmark_metrics(
            generations, scores, kind, sampling, settings, grader, compiler=compiler, not_graded=not_graded
        )
        isolation = {"sandbox_level": grader.sandbox_level, "sandbox_unprotected": list(grader.sandbox_unprotected)}
    if second:
        metrics["second_opinion"] = second_opinion(generations, scores, workers, settings.maths_timeout_s)
    return metrics | isolation | {
        "missing": len(missing),
        "left_out": read.left_out,
        "problems_digest": sampling["problems_digest"],
        "pinned_digest": None if benchmark == OWN_GOLDS else get(benchmark).digest,
        "ignored_fields": list(read.ignored),
        "finish_unknown": sum(generation.finish_reason == "unknown" for generation in generations),
    }, scores


def _load(benchmark: str, data: str | Path | None, count: int | None, seed: int) -> list[Problem]:
    if data is None or Path(data).expanduser().is_dir():
        return load(get(benchmark), "test", data, count, seed)
    path = Path(data).expanduser()
    if not path.exists():
        raise LoadError(
            f"{path} does not exist: name {benchmark}'s own file, or a folder with local copies (docs/data.md)"
        )
    parse = get(benchmark).parse
    if parse is None:
        raise LoadError(f"{benchmark} is generated: it has no file")
    loose = get(benchmark).sources["test"].loose_csv
    return parse("test", (row for _, row in read_file(path, loose_csv=loose)))[:count]
