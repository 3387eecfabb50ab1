"""Reads the artifacts of a pipeline into one structure. The three forms of the report are rendered from it, so they cannot disagree."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from evaluation.records import Generation, Problem, RecordError, Score, read_records, read_rows
from evaluation.statistics import PairedDifference, paired_difference
from stages.report.settings import ReportSettings
from stages.runtime import Context, StageError, read_json

CHECKPOINTS = ("base", "sft", "grpo")
TRUNCATION_WORTH_A_CAVEAT = 0.10


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage as its manifest tells it; `state` is what happened in the run that made this report."""

    name: str
    folder: Path
    manifest: dict[str, Any]
    state: str

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.manifest["preimage"]["settings"]
        return settings

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.manifest.get("metrics", {})
        return metrics

    @property
    def curve(self) -> list[dict[str, float]]:
        """`record/metrics.jsonl`, or nothing."""
        path = self.folder / "record" / "metrics.jsonl"
        return [row for _, row in read_rows(path)] if path.is_file() else []


@dataclasses.dataclass(frozen=True)
class Result:
    """One cell of the results table: a checkpoint on a benchmark, with its 95 % interval."""

    checkpoint: str
    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    k: int
    protocol: str
    verdicts: dict[str, int]
    truncated: int
    no_answer: int
    prompt_too_long: int
    protocol_details: dict[str, Any]

    @property
    def samples(self) -> int:
        return sum(self.verdicts.values())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two checkpoints on the same problems. `difference` is None where their protocols differ: then they may not be compared."""

    benchmark: str
    before: str
    after: str
    difference: PairedDifference | None

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, `not distinguishable` (the 95 % interval of the difference holds 0) or `different protocols`."""
        if self.difference is None:
            return "different protocols"
        if self.difference.low > 0:
            return "higher"
        return "lower" if self.difference.high < 0 else "not distinguishable"


@dataclasses.dataclass(frozen=True)
class Transcript:
    """One answer, in full or with its middle left out."""

    checkpoint: str
    benchmark: str
    problem_id: str
    verdict: str
    prompt: str
    completion: str
    extracted: str | None
    gold: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything the report shows."""

    title: str
    command: str
    seed: int
    stages: list[Stage]
    results: list[Result]
    comparisons: list[Comparison]
    transcripts: list[Transcript]
    caveats: list[str]
    config: dict[str, Any]

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def checkpoints(self) -> list[str]:
        return list(dict.fromkeys(result.checkpoint for result in self.results))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(result.benchmark for result in self.results))

    def result(self, checkpoint: str, benchmark: str) -> Result | None:
        return next((r for r in self.results if (r.checkpoint, r.benchmark) == (checkpoint, benchmark)), None)

    @property
    def verdict(self) -> str:
        """One sentence a benchmark, computed from the paired comparisons."""
        sentences = []
        for benchmark in self.benchmarks:
            steps = [_phrase(c) for c in self.comparisons if c.benchmark == benchmark]
            first = self.result(self.checkpoints[0], benchmark)
            start = f"{benchmark}: {first.checkpoint} {percent(first.value)}" if first else benchmark
            sentences.append("; ".join([start, *steps]) + ".")
        return " ".join(sentences)


def collect(context: Context[ReportSettings]) -> Report:
    """Read every input. Raises `StageError` for one that is missing or damaged."""
    states = {stage["name"]: stage["state"] for stage in context.details.get("stages", [])}
    try:
        stages = [
            Stage(name, folder, read_json(folder / "manifest.json"), states.get(name, "cached")) for name, folder in context.inputs.items()
        ]
        results, scores = [], {}
        for checkpoint in CHECKPOINTS:
            folder = context.inputs.get(f"score.{checkpoint}")
            if folder is None:
                continue
            scores[checkpoint] = read_records(folder / "scores.jsonl", Score)
            for benchmark, metrics in read_json(folder / "metrics.json").items():
                fields = {field.name for field in dataclasses.fields(Result)}
                results.append(Result(checkpoint, benchmark, **{k: v for k, v in metrics.items() if k in fields}))
        comparisons = _compare(results, scores)
        transcripts = _transcripts(context, scores)
    except (OSError, ValueError, KeyError, TypeError, RecordError) as error:
        raise StageError(f"an input of the report is missing or damaged: {error}", "Run `vcore store verify`, then run again.") from error
    if not results:
        raise StageError("there are no scores to report", "The report needs at least one score stage.")
    title = context.settings.title or context.details.get("name", "pipeline")
    return Report(
        title,
        context.details.get("command", ""),
        context.seed,
        stages,
        results,
        comparisons,
        transcripts,
        _caveats(results),
        context.details.get("config", {}),
    )


def percent(value: float) -> str:
    """`43.0 %`"""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """`[38.7, 47.4]`, in percent."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _phrase(comparison: Comparison) -> str:
    d = comparison.difference
    if d is None:
        return f"{comparison.after} and {comparison.before} were measured under different protocols"
    if comparison.verdict == "not distinguishable":
        return f"{comparison.after} not distinguishable from {comparison.before} ({_points(d)})"
    return f"{comparison.after} {comparison.verdict} than {comparison.before} by {_points(d)}"


def _points(d: PairedDifference) -> str:
    sign = "" if d.difference > 0 else "-" if d.difference < 0 else ""
    return f"{sign}{abs(100 * d.difference):.1f} points [{100 * d.low:.1f}, {100 * d.high:.1f}]"


def _compare(results: list[Result], scores: dict[str, list[Score]]) -> list[Comparison]:
    """Consecutive checkpoints, on the problems both answered."""
    checkpoints = [c for c in CHECKPOINTS if c in scores]
    pairs = list(itertools.pairwise(checkpoints))
    protocols = {(r.checkpoint, r.benchmark): r.protocol for r in results}
    out = []
    for benchmark in dict.fromkeys(r.benchmark for r in results):
        for before, after in pairs:
            if (before, benchmark) not in protocols or (after, benchmark) not in protocols:
                continue
            if protocols[before, benchmark] != protocols[after, benchmark]:
                out.append(Comparison(benchmark, before, after, None))
                continue
            old, new = _by_problem(scores[before], benchmark), _by_problem(scores[after], benchmark)
            common = [problem for problem in old if problem in new]
            difference = paired_difference([old[p] for p in common], [new[p] for p in common])
            out.append(Comparison(benchmark, before, after, difference))
    return out


def _by_problem(scores: list[Score], benchmark: str) -> dict[str, float]:
    """Share of right samples of each problem."""
    samples: dict[str, list[bool]] = {}
    for score in scores:
        if score.benchmark == benchmark:
            samples.setdefault(score.problem_id, []).append(score.verdict == "correct")
    return {problem: sum(right) / len(right) for problem, right in samples.items()}


def _transcripts(context: Context[ReportSettings], scores: dict[str, list[Score]]) -> list[Transcript]:
    settings = context.settings
    problems = {
        (problem.benchmark, problem.id): problem
        for file in sorted((context.inputs["data"] / "benchmarks").glob("*.jsonl"))
        for problem in read_records(file, Problem)
    }
    out = []
    for checkpoint, rows in scores.items():
        generations = {
            (g.benchmark, g.problem_id, g.sample): g
            for g in read_records(context.inputs[f"generate.{checkpoint}"] / "generations.jsonl", Generation)
        }
        for benchmark in dict.fromkeys(row.benchmark for row in rows):
            mine = [row for row in rows if row.benchmark == benchmark]
            right = [row for row in mine if row.verdict == "correct"][: settings.transcripts]
            wrong = [row for row in mine if row.verdict != "correct"][: settings.transcripts]
            for row in right + wrong:
                generation = generations[row.benchmark, row.problem_id, row.sample]
                clip = settings.transcript_characters
                out.append(
                    Transcript(
                        checkpoint,
                        benchmark,
                        row.problem_id,
                        row.verdict,
                        shorten(problems[benchmark, row.problem_id].prompt, clip),
                        shorten(generation.completion, clip),
                        shorten(row.extracted, clip) if row.extracted is not None else None,
                        shorten(row.gold, clip),
                        row.detail,
                    )
                )
    return out


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end with a note of how many characters are left out between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def _caveats(results: list[Result]) -> list[str]:
    """What a careful reader has to know, as far as the data show it."""
    out = ["Intervals cover the sampling of test problems, for this one seed; they do not cover what another training seed would give."]
    for r in results:
        where = f"{r.benchmark}, {r.checkpoint}"
        if r.truncated > TRUNCATION_WORTH_A_CAVEAT * r.samples:
            share = percent(r.truncated / r.samples)
            out.append(f"{where}: {share} of completions were cut at the token limit; the score says what the model can do within it.")
        if r.verdicts.get("grader_error") or r.verdicts.get("timeout"):
            errors, timeouts = r.verdicts.get("grader_error", 0), r.verdicts.get("timeout", 0)
            out.append(f"{where}: {errors} grader errors and {timeouts} timeouts are counted as not correct.")
        if r.prompt_too_long:
            out.append(f"{where}: {r.prompt_too_long} prompts did not fit the context and count as not answered.")
    for benchmark in dict.fromkeys(r.benchmark for r in results):
        values = [r.value for r in results if r.benchmark == benchmark]
        if len(values) > 1 and sum(value == 1.0 for value in values) > 1:
            out.append(f"{benchmark} is saturated at 100 %: it cannot tell the later checkpoints apart.")
        small = next(r for r in results if r.benchmark == benchmark)
        if small.n < 100:
            out.append(f"{benchmark} has {small.n} problems: one of them is {100 / small.n:.1f} points.")
    return out
