"""Builds the dataset artifact: `sft.jsonl`, `rl.jsonl`, `dev.jsonl` (where asked for), `benchmarks/NAME.jsonl`,
`dropped.jsonl` (demonstrations that are not verified) and `summary.json`.

Training rows are checked row by row, and against the benchmarks that this very pipeline evaluates.
"""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from evaluation.benchmarks import get, names
from evaluation.graders.programs import packed
from evaluation.graders.programs.tests import refusals
from evaluation.loading import digest
from evaluation.records import Problem, write_jsonl
from stages.data.overlap import Hit, ReportedQuestions
from stages.data.own_problems import own_problems
from stages.data.questions import Question, question
from stages.data.reading import Dropped, load_task
from stages.data.rows import Row, T, TrainingRow, demonstrations, labelled, refuse_repeated, rl_problems
from stages.data.settings import BenchmarkSource, DataSettings
from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import write_json


def run(ctx: Context[DataSettings]) -> Result:
    """Load every source, refuse what is broken or overlaps a benchmark, and write the artifact."""
    settings = ctx.settings
    total = len(settings.sft) + len(settings.rl) + len(settings.dev) + len(settings.benchmarks)
    step = itertools.count(1)

    benchmarks: dict[str, list[Problem]] = {}
    for benchmark in settings.benchmarks:
        benchmarks[benchmark.name] = _benchmark(benchmark, ctx)
        ctx.progress(next(step), total, "load", problems=len(benchmarks[benchmark.name]))
    sft: list[TrainingRow[Row]] = []
    dropped: list[Dropped] = []
    for label, source, name in labelled("data.sft", settings.sft):
        sft += demonstrations(source, name, label, ctx, dropped)
        ctx.progress(next(step), total, "load", rows=len(sft))
    rl: list[TrainingRow[Problem]] = []
    for label, source, name in labelled("data.rl", settings.rl):
        rl += rl_problems(source, name, label, ctx)
        ctx.progress(next(step), total, "load", prompts=len(rl))
    dev: list[TrainingRow[Problem]] = []
    for label, source, name in labelled("data.dev", settings.dev):
        dev += rl_problems(source, name, label, ctx)
        ctx.progress(next(step), total, "load", problems=len(dev))
    refuse_repeated(rl, "data.rl")
    refuse_repeated(dev, "data.dev")

    reported = ReportedQuestions(
        {b.name: _questions(benchmarks[b.name], b) for b in settings.benchmarks}, settings.overlap_ngram
    )
    hits = {"sft": _find(reported, sft), "rl": _find(reported, rl)}
    overlap = [*hits["sft"], *hits["rl"]]
    if overlap and _leave_out(overlap, len(sft) + len(rl), ctx):
        sft, rl = _rest(sft, hits["sft"], "data.sft"), _rest(rl, hits["rl"], "data.rl")
    _check_dev(dev, {asked for rows in (sft, rl) for row in rows for asked in row.questions}, reported)

    folder = ctx.output / "benchmarks"
    folder.mkdir()
    counts = {
        name: write_jsonl(folder / f"{name}.jsonl", _with_cases(problems, folder))
        for name, problems in benchmarks.items()
    }
    if dev:
        write_jsonl(ctx.output / "dev.jsonl", _contents(dev))
    n_sft = write_jsonl(ctx.output / "sft.jsonl", _contents(sft))
    n_rl = write_jsonl(ctx.output / "rl.jsonl", _contents(rl))
    if dropped:
        write_jsonl(ctx.output / "dropped.jsonl", dropped)
    summary = {
        "sft": {
            "rows": n_sft,
            "by_source": Counter(row.content["source"] for row in sft),
            "sha256": _sha256(ctx.output / "sft.jsonl"),
            "dropped": _counted(dropped),
        },
        "rl": {
            "prompts": n_rl,
            "by_source": Counter(p.content.benchmark for p in rl),
            "sha256": _sha256(ctx.output / "rl.jsonl"),
        },
        "dev": {"problems": len(dev), "by_source": Counter(p.content.benchmark for p in dev)},
        "benchmarks": {
            name: {
                "problems": n,
                "complete": get(name).size if name in names() else n,
                "sha256": _sha256(folder / f"{name}.jsonl"),
                **({"not_graded": refused} if (refused := refusals(benchmarks[name])) else {}),
            }
            for name, n in counts.items()
        },
        "overlap": [str(hit) for hit in overlap],
        "on_overlap": settings.on_overlap,
    }
    write_json(ctx.output / "summary.json", summary)
    proof = {"sft_rows": n_sft, "rl_prompts": n_rl, "benchmark_problems": counts}
    headline = f"{n_sft} demonstrations, {n_rl} prompts, {sum(counts.values())} benchmark problems"
    return Result(proof, {"headline": headline})


def _with_cases(problems: Iterable[Problem], folder: Path) -> Iterator[Problem]:
    """The problems, those of their tests that lie in files of their own copied to below the folder."""
    for number, problem in enumerate(problems, start=1):
        tests = packed.moved(problem.tests, folder, f"{problem.benchmark}.cases/{number}.jsonl.gz")
        yield dataclasses.replace(problem, tests=tests)


def _benchmark(source: BenchmarkSource, ctx: Context[DataSettings]) -> list[Problem]:
    label = f"benchmark {source.name}"
    if source.own is not None:
        return _enough(own_problems(source.own, source.name)[: source.problems], source, label)
    benchmark = get(source.name)
    loaded = load_task(benchmark, source.split, source.problems, source.seed, label, ctx, where=source.where)
    problems = _enough(loaded, source, label)
    if refused := refusals(problems):
        reasons = "; ".join(f"{problem}: {reason}" for problem, reason in refused.items())
        ctx.note(f"{label}: {len(refused)} of {len(problems)} problems cannot be graded (grader_error): {reasons}")
    complete = source.split == "test" and len(problems) == benchmark.size
    if complete and benchmark.digest not in (None, digest(problems)):
        ctx.note(f"{label}: digest {digest(problems)}, not the {benchmark.digest} this project was checked against")
    return problems


def _enough(problems: list[Problem], source: BenchmarkSource, label: str) -> list[Problem]:
    if source.problems is not None and len(problems) < source.problems:
        raise StageError(
            f"{label} has {len(problems)} problems, {source.problems} were asked for",
            "Lower benchmarks.*.problems or leave it out.",
        )
    return problems


def _questions(problems: list[Problem], source: BenchmarkSource) -> dict[str, Question]:
    template = source.own.template if source.own is not None else None
    return {problem.id: question(problem.prompt, template) for problem in problems}


def _find(reported: ReportedQuestions, rows: Iterable[TrainingRow[T]]) -> list[Hit]:
    return reported.find({row.id: row.questions for row in rows})


def _leave_out(overlap: list[Hit], rows: int, ctx: Context[DataSettings]) -> bool:
    """Whether the hits among so many training rows are to be left out. Raises `StageError` where overlap is refused."""
    settings = ctx.settings
    if settings.on_overlap == "refuse" and len(overlap) / rows > settings.max_overlap_share:
        shown = "; ".join(str(hit) for hit in overlap[:3])
        raise StageError(
            f"{len(overlap)} training prompts are benchmark problems, or hold long parts of one: {shown}",
            "Remove them, leave them out (data.on_overlap: drop), or keep them (note) and say so beside every score.",
        )
    if settings.on_overlap == "note":
        what = f"{len(overlap)} training prompts are benchmark problems, or hold long parts of one"
        ctx.note(f"{what}; they stay (data.on_overlap: note)")
        return False
    ctx.note(f"{len(overlap)} training prompts are left out: benchmark problems, or long parts of one")
    return True


def _rest(rows: list[TrainingRow[T]], overlap: list[Hit], section: str) -> list[TrainingRow[T]]:
    """The rows without the hits. Raises `StageError` where that is none: the stage that trains on them would say so
    hours later."""
    hits = {hit.training for hit in overlap}
    remaining = [row for row in rows if row.id not in hits]
    if rows and not remaining:
        what = f"all {len(rows)} prompts are benchmark problems, or hold long parts of one"
        fix = "Train on other rows, or evaluate on other benchmarks."
        raise StageError(f"{section}: {what}, and nothing is left: {overlap[0]}", fix)
    return remaining


def _check_dev(dev: list[TrainingRow[Problem]], trained: set[Question], reported: ReportedQuestions) -> None:
    """Choosing by what was trained on, or by what is reported, would show in the result. Raises `StageError` where that
    is so."""
    seen = [problem.id for problem in dev if trained.intersection(problem.questions)]
    if seen:
        message = f"{len(seen)} problems of data.dev are training prompts too: {seen[0]}"
        raise StageError(message, "Take other rows, or another split.")
    hits = _find(reported, dev)
    if hits:
        message = f"{len(hits)} problems of data.dev are benchmark problems: {hits[0]}"
        raise StageError(message, "Choose by another split.")


def _counted(dropped: Iterable[Dropped]) -> dict[str, dict[str, int]]:
    """Source -> verdict -> how many demonstrations are left out for it."""
    counts: dict[str, Counter[str]] = {}
    for one in dropped:
        counts.setdefault(one.source, Counter())[one.verdict] += 1
    return {source: dict(sorted(verdicts.items())) for source, verdicts in counts.items()}


def _contents(rows: Iterable[TrainingRow[T]]) -> Iterator[T]:
    return (row.content for row in rows)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
