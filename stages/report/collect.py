"""Reads the artifacts of a pipeline into its report, and refuses what is missing, damaged or contradicts itself."""

import dataclasses
import itertools
import math
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from evaluation.comparison import Comparison, Measured, compare, right_shares
from evaluation.records import VERDICTS, Generation, Problem, Score, read_records, read_rows
from stages.harness.context import Context, StageError
from stages.harness.json_files import read_json
from stages.report import documents
from stages.report.cost import stage_cost
from stages.report.documents import (
    BenchmarkResult,
    PairedComparison,
    Report,
    ReportedComparison,
    ReportedStage,
    Transcript,
    WeightedRow,
)
from stages.report.render.text import shorten, versions
from stages.report.settings import ReportSettings
from stages.report.statements import Overlap, caveats, verdict

SampleId = tuple[str, str, int]
_FIX = "Run `vcore store verify`, then run again."
_DAMAGE = (OSError, ValueError, TypeError, KeyError)
"""What reading a damaged artifact raises."""


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """What was sampled from one checkpoint, and how it was judged."""

    results: dict[str, BenchmarkResult]
    scores: dict[str, list[Score]]
    generations: dict[SampleId, Generation]


def collect(ctx: Context[ReportSettings]) -> Report:
    """Read every input. Raises `StageError` if one is missing or damaged, or its numbers do not fit its records."""
    details = ctx.details
    states = {stage["name"]: stage["state"] for stage in details.get("stages", [])}
    execution = details.get("config", {}).get("execution", {})
    stages = [_stage(name, folder, states.get(name, "cached"), execution) for name, folder in ctx.inputs.items()]
    checkpoints = {  # in the order of the inputs, which is that of the pipeline
        checkpoint: _checkpoint(checkpoint, folder, _input(ctx, f"generate.{checkpoint}"))
        for name, folder in ctx.inputs.items()
        if (checkpoint := name.removeprefix("score.")) != name
    }
    results = [result for checkpoint in checkpoints.values() for result in checkpoint.results.values()]
    if not results:
        raise StageError("there are no scores to report", "The report needs at least one score stage.")
    data = _input(ctx, "data")
    comparisons = _compare(checkpoints)
    try:
        summary = read_json(data / "summary.json")
        overlap = Overlap(len(summary["overlap"]), stayed=summary["on_overlap"] == "note")
        files = sorted((data / "benchmarks").glob("*.jsonl"))
        problems = {(p.benchmark, p.id): p for file in files for p in read_records(file, Problem)}
    except _DAMAGE as error:
        raise _damaged("data", data, error) from error
    latest = max(stages, key=lambda stage: stage.started)
    return Report(
        title=ctx.settings.title or details.get("name", "pipeline"),
        verdict=verdict(results, comparisons),
        seed=ctx.seed,
        command=details.get("command", ""),
        results=results,
        comparisons=[_reported(comparison) for comparison in comparisons],
        stages=stages,
        caveats=caveats(results, comparisons, stages, overlap),
        versions={name: ", ".join(those) for name, those in versions(stage.versions for stage in stages).items()},
        git=latest.git,
        hardware=latest.hardware,
        config=details.get("config", {}),
        transcripts=_transcripts(ctx.settings, checkpoints, problems),
        weighted_rows=_weighted_rows(ctx.inputs.get("sft")),
    )


def _input(ctx: Context[ReportSettings], name: str) -> Path:
    if name not in ctx.inputs:
        fix = "Give the artifact of every stage that its scores were made from."
        raise StageError(f"the report's input {name} is missing", fix)
    return ctx.inputs[name]


def _damaged(name: str, folder: Path, error: Exception) -> StageError:
    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    if isinstance(error, ValidationError):
        what = documents.first_problem(error)
    where = " in one of its files" if what.endswith(" is missing") else ""
    return StageError(f"the report's input {name} in {folder} is missing or damaged: {what}{where}", _FIX)


def _stage(name: str, folder: Path, state: str, execution: dict[str, Any]) -> ReportedStage:
    try:
        manifest = read_json(folder / "manifest.json")
        path = folder / "record" / "metrics.jsonl"
        curve = [row for _, row in read_rows(path)] if path.is_file() else []
        if any(not isinstance(row.get("step"), int) for row in curve):
            raise ValueError(f"{path}: a row has no step")
        preimage = {part: manifest["preimage"][part] for part in ("outside", "settings")}
        stage = ReportedStage.model_validate({**manifest, **preimage, "name": name, "state": state, "curve": curve})
        cost = stage_cost(
            name, stage.seconds, stage.metrics, len(stage.hardware.gpu), manifest.get("gpus"), curve, execution
        )
        return stage.model_copy(update={"cost": cost})
    except _DAMAGE as error:
        raise _damaged(name, folder, error) from error


def _weighted_rows(folder: Path | None) -> list[WeightedRow]:
    """What SFT recorded of its token weights; nothing where there was no SFT, or its method has none."""
    if folder is None or not (path := folder / "record" / "token_weights.json").is_file():
        return []
    try:
        taken = [[WeightedRow(step=entry["step"], **row) for row in entry["rows"]] for entry in read_json(path)]
    except _DAMAGE as error:
        raise _damaged("sft", folder, error) from error
    rows = [(index, row) for rows in taken for index, row in enumerate(rows)]
    return [row for _, row in sorted(rows, key=lambda item: (item[0], item[1].step))]


def _checkpoint(name: str, score_folder: Path, generate_folder: Path) -> _Checkpoint:
    try:
        rows = read_records(generate_folder / "generations.jsonl", Generation)
        generations = {(g.benchmark, g.problem_id, g.sample): g for g in rows}
    except (OSError, ValueError) as error:
        raise _damaged(f"generate.{name}", generate_folder, error) from error
    try:
        scores: dict[str, list[Score]] = {}
        for score in read_records(score_folder / "scores.jsonl", Score):
            if (score.benchmark, score.problem_id, score.sample) not in generations:
                sample = f"sample {score.sample} of {score.benchmark} {score.problem_id}"
                raise ValueError(f"{sample} was scored but never generated")
            scores.setdefault(score.benchmark, []).append(score)
        metrics = read_json(score_folder / "metrics.json")
        if set(metrics) != set(scores):
            raise ValueError(f"scores are of {sorted(scores)}, numbers of {sorted(metrics)}")
        results = {b: _result(name, b, metrics[b], of_benchmark, generations) for b, of_benchmark in scores.items()}
    except _DAMAGE as error:
        raise _damaged(f"score.{name}", score_folder, error) from error
    return _Checkpoint(results, scores, generations)


def _result(
    checkpoint: str,
    benchmark: str,
    metrics: dict[str, Any],
    scores: list[Score],
    generations: dict[SampleId, Generation],
) -> BenchmarkResult:
    """One cell, after its numbers are found again in the scores. Raises `ValueError` where they are not."""
    lengths = [generations[s.benchmark, s.problem_id, s.sample].completion_tokens for s in scores]
    split = metrics.get("protocol_details", {}).get("sampling", {}).get("split", "")
    names = {"checkpoint": checkpoint, "benchmark": benchmark, "split": str(split)}
    result = BenchmarkResult.model_validate({**metrics, **names, "completion_tokens": fmean(lengths)})
    shares = right_shares(scores)
    mean = fmean(shares.values())
    if not math.isclose(result.value, mean, abs_tol=1e-9) or not result.low <= result.value <= result.high:
        raise ValueError(f"{benchmark}: the value {result.value} is not that of scores.jsonl, {mean}")
    counts = {name: sum(s.verdict == name for s in scores) for name in VERDICTS}
    if (result.n, result.samples) != (len(shares), len(scores)) or result.verdicts != counts:
        raise ValueError(f"{benchmark}: the counts in metrics.json are not those of scores.jsonl")
    return result


def _compare(checkpoints: dict[str, _Checkpoint]) -> list[Comparison]:
    """Consecutive checkpoints, on the same problems; without a difference where the protocols are not the same."""

    def measured(name: str, benchmark: str) -> Measured:
        result = checkpoints[name].results[benchmark]
        return Measured(checkpoints[name].scores[benchmark], result.protocol, result.protocol_details)

    out = []
    for benchmark in dict.fromkeys(name for checkpoint in checkpoints.values() for name in checkpoint.results):
        having = [name for name, checkpoint in checkpoints.items() if benchmark in checkpoint.results]
        for before, after in itertools.pairwise(having):
            try:
                out.append(compare(benchmark, before, after, measured(before, benchmark), measured(after, benchmark)))
            except ValueError as error:
                same = f"{benchmark}: {before} and {after} name the same protocol"
                what = f"{same} but were not scored on the same problems and samples ({error})"
                raise StageError(what, _FIX) from error
    return out


def _reported(c: Comparison) -> ReportedComparison:
    names: dict[str, Any] = {"benchmark": c.benchmark, "before": c.before, "after": c.after, "verdict": c.verdict}
    if c.difference is None:
        return ReportedComparison(**names)
    return PairedComparison(**names, exact=c.exact, **dataclasses.asdict(c.difference))


def _transcripts(
    settings: ReportSettings, checkpoints: dict[str, _Checkpoint], problems: dict[tuple[str, str], Problem]
) -> list[Transcript]:
    """Of each benchmark and checkpoint the first right answers, and others: one of each verdict before a second."""
    out = []
    for benchmark in dict.fromkeys(name for checkpoint in checkpoints.values() for name in checkpoint.scores):
        for name, checkpoint in checkpoints.items():
            scores = checkpoint.scores.get(benchmark, [])
            right = [score for score in scores if score.verdict == "correct"][: settings.transcripts]
            for score in right + _varied([s for s in scores if s.verdict != "correct"], settings.transcripts):
                problem = problems.get((benchmark, score.problem_id))
                if problem is None:
                    what = f"{benchmark} {score.problem_id} was scored but is not among the data's problems"
                    raise StageError(what, _FIX)
                generation = checkpoint.generations[benchmark, score.problem_id, score.sample]
                out.append(_transcript(name, problem, generation, score, settings.transcript_characters))
    return out


def _varied(scores: list[Score], count: int) -> list[Score]:
    """The first of each verdict, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    rounds = []
    for score in scores:
        seen[score.verdict] += 1
        rounds.append((seen[score.verdict], score))
    return [score for _, score in sorted(rounds, key=lambda item: item[0])[:count]]


def _transcript(checkpoint: str, problem: Problem, generation: Generation, score: Score, limit: int) -> Transcript:
    extracted = None if score.extracted is None else shorten(score.extracted, limit)
    texts: dict[str, Any] = {
        "extracted": extracted,
        "gold": shorten(score.gold, limit),
        "detail": shorten(score.detail, limit),
    }
    return Transcript(
        checkpoint=checkpoint,
        problem=dataclasses.replace(problem, prompt=shorten(problem.prompt, limit)),
        generation=dataclasses.replace(generation, completion=shorten(generation.completion, limit)),
        score=dataclasses.replace(score, **texts),
    )
