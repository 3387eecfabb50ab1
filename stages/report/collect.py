"""Reads the artifacts of a pipeline into the report's model, and refuses what is missing, damaged or contradicts itself."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.comparison import Comparison, Measured, compare, right_shares
from evaluation.records import VERDICTS, Generation, Problem, Score, read_records, read_rows
from stages.harness.context import Context, StageError
from stages.harness.json_files import read_json
from stages.report.model import CHECKPOINTS, Report, Result, Stage, Transcript, WeightedRow
from stages.report.settings import ReportSettings
from stages.report.statements import caveats, verdict

SampleId = tuple[str, str, int]
_FIX = "Run `vcore store verify`, then run again."


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """What was sampled from one checkpoint, and how it was judged."""

    results: dict[str, Result]
    scores: dict[str, list[Score]]
    generations: dict[SampleId, Generation]


def collect(ctx: Context[ReportSettings]) -> Report:
    """Read every input. Raises `StageError` for one that is missing or damaged, or whose numbers do not fit its records."""
    states = {stage["name"]: stage["state"] for stage in ctx.details.get("stages", [])}
    stages = [_stage(name, folder, states.get(name, "cached")) for name, folder in ctx.inputs.items()]
    measured = {
        name: _checkpoint(name, _input(ctx, f"score.{name}"), _input(ctx, f"generate.{name}"))
        for name in CHECKPOINTS
        if f"score.{name}" in ctx.inputs
    }
    results = [result for checkpoint in measured.values() for result in checkpoint.results.values()]
    if not results:
        raise StageError("there are no scores to report", "The report needs at least one score stage.")
    data = _input(ctx, "data")
    comparisons = _compare(measured)
    try:
        overlap = len(read_json(data / "summary.json")["overlap"])
        problems = {
            (p.benchmark, p.id): p
            for file in sorted((data / "benchmarks").glob("*.jsonl"))
            for p in read_records(file, Problem)
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged("data", data, error) from error
    return Report(
        title=ctx.settings.title or ctx.details.get("name", "pipeline"),
        verdict=verdict(results, comparisons),
        command=ctx.details.get("command", ""),
        seed=ctx.seed,
        stages=stages,
        results=results,
        comparisons=comparisons,
        transcripts=_transcripts(ctx.settings, measured, problems),
        weighted_rows=_weighted_rows(ctx.inputs.get("sft")),
        caveats=caveats(results, comparisons, stages, overlap),
        config=ctx.details.get("config", {}),
    )


def _input(ctx: Context[ReportSettings], name: str) -> Path:
    if name not in ctx.inputs:
        raise StageError(
            f"the report's input {name} is missing", "Give the artifact of every stage that its scores were made from."
        )
    return ctx.inputs[name]


def _damaged(name: str, folder: Path, error: Exception) -> StageError:
    what = f"{error} is missing in one of its files" if isinstance(error, KeyError) else str(error)
    return StageError(f"the report's input {name} in {folder} is missing or damaged: {what}", _FIX)


def _stage(name: str, folder: Path, state: str) -> Stage:
    try:
        manifest = read_json(folder / "manifest.json")
        path = folder / "record" / "metrics.jsonl"
        curve = [row for _, row in read_rows(path)] if path.is_file() else []
        if any(not isinstance(row.get("step"), int) for row in curve):
            raise ValueError(f"{path}: a row has no step")
        return Stage(
            name=name,
            state=state,
            key=manifest["key"],
            digest=manifest["digest"],
            started=manifest["started"],
            seconds=manifest["seconds"],
            inputs=manifest["inputs"],
            outside=manifest["preimage"]["outside"],
            settings=manifest["preimage"]["settings"],
            metrics=manifest["metrics"],
            proof=manifest["proof"],
            versions=manifest["versions"],
            hardware=manifest["hardware"]
            | {field: manifest["hardware"][field] for field in ("cpu", "cores", "memory_gib", "gpu")},
            git={field: manifest["git"][field] for field in ("commit", "dirty")},
            curve=curve,
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(name, folder, error) from error


def _weighted_rows(folder: Path | None) -> list[WeightedRow]:
    """What SFT recorded of its token weights; nothing where there was no SFT, or its method has none."""
    if folder is None or not (path := folder / "record" / "token_weights.json").is_file():
        return []
    try:
        found = [
            (index, WeightedRow(entry["step"], **row))
            for entry in read_json(path)
            for index, row in enumerate(entry["rows"])
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged("sft", folder, error) from error
    return [row for _, row in sorted(found, key=lambda item: (item[0], item[1].step))]


def _checkpoint(name: str, score_folder: Path, generate_folder: Path) -> _Checkpoint:
    try:
        generations = {
            (g.benchmark, g.problem_id, g.sample): g
            for g in read_records(generate_folder / "generations.jsonl", Generation)
        }
    except (OSError, ValueError) as error:
        raise _damaged(f"generate.{name}", generate_folder, error) from error
    try:
        scores: dict[str, list[Score]] = {}
        for score in read_records(score_folder / "scores.jsonl", Score):
            if (score.benchmark, score.problem_id, score.sample) not in generations:
                raise ValueError(
                    f"sample {score.sample} of {score.benchmark} {score.problem_id} was scored but never generated"
                )
            scores.setdefault(score.benchmark, []).append(score)
        metrics = read_json(score_folder / "metrics.json")
        if set(metrics) != set(scores):
            raise ValueError(f"scores are of {sorted(scores)}, numbers of {sorted(metrics)}")
        results = {
            benchmark: _result(name, benchmark, metrics[benchmark], rows, generations)
            for benchmark, rows in scores.items()
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(f"score.{name}", score_folder, error) from error
    return _Checkpoint(results, scores, generations)


def _result(
    checkpoint: str,
    benchmark: str,
    metrics: dict[str, Any],
    scores: list[Score],
    generations: dict[SampleId, Generation],
) -> Result:
    """One cell, after its numbers are found again in the scores. Raises `ValueError` where they are not, `KeyError` for a missing field."""
    given = {f.name: metrics[f.name] for f in dataclasses.fields(Result) if f.name not in _OWN_FIELDS}
    mine = [generations[s.benchmark, s.problem_id, s.sample] for s in scores]
    result = Result(
        checkpoint=checkpoint,
        benchmark=benchmark,
        completion_tokens=fmean(g.completion_tokens for g in mine),
        pass_at=metrics.get("pass_at", {}),
        majority=metrics.get("majority", {}),
        **given,
    )
    shares = right_shares(scores)
    counts = {name: sum(s.verdict == name for s in scores) for name in VERDICTS}
    if (
        not math.isclose(result.value, fmean(shares.values()), abs_tol=1e-9)
        or not result.low <= result.value <= result.high
    ):
        raise ValueError(f"{benchmark}: the value {result.value} is not that of scores.jsonl, {fmean(shares.values())}")
    if (result.n, result.samples) != (len(shares), len(scores)) or result.verdicts != counts:
        raise ValueError(f"{benchmark}: the counts in metrics.json are not those of scores.jsonl")
    return result


_OWN_FIELDS = {"checkpoint", "benchmark", "completion_tokens", "pass_at", "majority"}


def _compare(measured: dict[str, _Checkpoint]) -> list[Comparison]:
    """Consecutive checkpoints, on the same problems; without a difference where the protocols are not the same."""
    out = []
    for benchmark in dict.fromkeys(name for checkpoint in measured.values() for name in checkpoint.results):
        having = [name for name in CHECKPOINTS if name in measured and benchmark in measured[name].results]
        for before, after in itertools.pairwise(having):
            first, second = measured[before].results[benchmark], measured[after].results[benchmark]
            old = Measured(measured[before].scores[benchmark], first.protocol, first.protocol_details)
            new = Measured(measured[after].scores[benchmark], second.protocol, second.protocol_details)
            try:
                out.append(compare(benchmark, before, after, old, new))
            except ValueError as error:
                raise StageError(
                    f"{benchmark}: {before} and {after} name the same protocol but were not scored on the same problems and samples "
                    f"({error})",
                    _FIX,
                ) from error
    return out


def _transcripts(
    settings: ReportSettings, measured: dict[str, _Checkpoint], problems: dict[tuple[str, str], Problem]
) -> list[Transcript]:
    """For each benchmark and checkpoint the first right answers, and of the others one of each verdict before a second of any."""
    out = []
    for benchmark in dict.fromkeys(name for checkpoint in measured.values() for name in checkpoint.scores):
        for name, checkpoint in measured.items():
            scores = checkpoint.scores.get(benchmark, [])
            right = [score for score in scores if score.verdict == "correct"][: settings.transcripts]
            for score in right + _varied([s for s in scores if s.verdict != "correct"], settings.transcripts):
                if (benchmark, score.problem_id) not in problems:
                    raise StageError(
                        f"{benchmark} {score.problem_id} was scored but is not among the data's problems", _FIX
                    )
                generation = checkpoint.generations[benchmark, score.problem_id, score.sample]
                out.append(
                    _transcript(
                        name, score, generation, problems[benchmark, score.problem_id], settings.transcript_characters
                    )
                )
    return out


def _varied(scores: list[Score], count: int) -> list[Score]:
    seen: dict[str, int] = {}
    ranked = []
    for position, score in enumerate(scores):
        seen[score.verdict] = seen.get(score.verdict, 0) + 1
        ranked.append((seen[score.verdict], position, score))
    return [score for _, _, score in sorted(ranked, key=lambda item: item[:2])[:count]]


def _transcript(checkpoint: str, score: Score, generation: Generation, problem: Problem, limit: int) -> Transcript:
    return Transcript(
        checkpoint=checkpoint,
        benchmark=score.benchmark,
        problem_id=score.problem_id,
        sample=score.sample,
        verdict=score.verdict,
        prompt=shorten(problem.prompt, limit),
        completion=shorten(generation.completion, limit),
        finish_reason=generation.finish_reason,
        tokens=generation.completion_tokens,
        extracted=shorten(score.extracted, limit) if score.extracted is not None else None,
        gold=shorten(score.gold, limit),
        detail=shorten(score.detail, limit),
    )


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end with a note of how many characters are left out between them."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 2, limit // 2
    return f"{text[:head]}\n[... {len(text) - limit:,} characters left out ...]\n{text[len(text) - tail :]}"
