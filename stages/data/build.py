"""Builds the dataset artifact: `sft.jsonl`, `rl.jsonl`, `dev.jsonl` (where asked for), `benchmarks/NAME.jsonl` and `summary.json`.

Training rows are checked row by row, and against the benchmarks that this very pipeline evaluates.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS, get
from evaluation.benchmarks.base import Benchmark
from evaluation.grading import Grader
from evaluation.loading import LoadError, digest, load
from evaluation.own import COLUMNS, program_tests, read_own
from evaluation.records import Kind, Problem, RecordError, read_rows, write_jsonl
from stages.data.overlap import Hit, find_overlap
from stages.data.settings import BenchmarkSource, DataSettings, SourceSettings
from stages.runtime import Context, Result, StageError, write_json

Row = dict[str, Any]
VERIFY_BATCH = 256
"""Demonstrations graded at once."""


def build(context: Context[DataSettings]) -> Result:
    """Load every source, refuse what is broken or overlaps a benchmark, and write the artifact."""
    settings = context.settings
    total = len(settings.sft) + len(settings.rl) + len(settings.dev) + len(settings.benchmarks)
    step = itertools.count(1)

    benchmarks: dict[str, list[Problem]] = {}
    for wanted in settings.benchmarks:
        benchmarks[wanted.name] = _benchmark(wanted, context)
        context.progress(next(step), total, "load", problems=len(benchmarks[wanted.name]))
    sft: list[Row] = []
    for index, source in enumerate(settings.sft):
        sft += _sft_rows(source, f"data.sft.{index}", context)
        context.progress(next(step), total, "load", rows=len(sft))
    rl: list[Problem] = []
    for index, source in enumerate(settings.rl):
        rl += _rl_problems(source, f"data.rl.{index}", context)
        context.progress(next(step), total, "load", prompts=len(rl))

    dev: list[Problem] = []
    for index, source in enumerate(settings.dev):
        dev += _rl_problems(source, f"data.dev.{index}", context)
        context.progress(next(step), total, "load", problems=len(dev))

    prompts = {row["id"]: row["prompt"][0]["content"] for row in sft} | {p.id: p.prompt for p in rl}
    overlap = find_overlap(prompts, benchmarks, settings.overlap_ngram)
    if overlap:
        sft, rl = _without_overlap(overlap, sft, rl, context)
    _check_dev(dev, {*prompts.values()}, benchmarks, settings.overlap_ngram)

    folder = context.output / "benchmarks"
    folder.mkdir()
    counts = {name: write_jsonl(folder / f"{name}.jsonl", problems) for name, problems in benchmarks.items()}
    if dev:
        write_jsonl(context.output / "dev.jsonl", dev)
    n_sft, n_rl = write_jsonl(context.output / "sft.jsonl", sft), write_jsonl(context.output / "rl.jsonl", rl)
    summary = {
        "sft": {"rows": n_sft, "by_source": _count(row["source"] for row in sft), "sha256": _sha256(context.output / "sft.jsonl")},
        "rl": {"prompts": n_rl, "by_source": _count(p.benchmark for p in rl), "sha256": _sha256(context.output / "rl.jsonl")},
        "dev": {"problems": len(dev), "by_source": _count(p.benchmark for p in dev)},
        "benchmarks": {
            name: {
                "problems": n,
                "complete": BENCHMARKS[name].size if name in BENCHMARKS else n,
                "sha256": _sha256(folder / f"{name}.jsonl"),
            }
            for name, n in counts.items()
        },
        "overlap": [str(hit) for hit in overlap],
        "on_overlap": settings.on_overlap,
    }
    write_json(context.output / "summary.json", summary)
    proof = {"sft_rows": n_sft, "rl_prompts": n_rl, "benchmark_problems": counts}
    return Result(proof, {"headline": f"{n_sft} demonstrations, {n_rl} prompts, {sum(counts.values())} benchmark problems"})


def _benchmark(source: BenchmarkSource, context: Context[DataSettings]) -> list[Problem]:
    label = f"benchmark {source.name}"
    if source.own is not None:
        try:
            problems = read_own(Path(source.own.file).expanduser(), source.name, source.own.kind, source.own.template)[: source.problems]
        except (RecordError, OSError) as error:
            raise StageError(f"{label}: {error}", f"The file needs the columns {COLUMNS}.") from error
        return _enough(problems, source, label)
    benchmark = get(source.name)
    problems = _enough(_load(benchmark, source.split, source.problems, source.seed, label, context), source, label)
    complete = source.split == "test" and len(problems) == benchmark.size
    if complete and benchmark.digest not in (None, digest(problems)):
        context.note(f"{label}: digest {digest(problems)}, not the {benchmark.digest} this project was checked against")
    return problems


def _enough(problems: list[Problem], source: BenchmarkSource, label: str) -> list[Problem]:
    if source.problems is not None and len(problems) < source.problems:
        raise StageError(
            f"{label} has {len(problems)} problems, {source.problems} were asked for", "Lower benchmarks.*.problems or leave it out."
        )
    return problems


def _load(benchmark: Benchmark, split: str, n: int | None, seed: int, label: str, context: Context[DataSettings]) -> list[Problem]:
    try:
        problems = load(benchmark, split, context.machine.data_dir, n, seed, revision=_commit(label, context))
    except (RecordError, LoadError, OSError) as error:
        raise StageError(f"{label}: {error}", "Check the file, or data_dir; the expected columns are in docs/data.md.") from error
    if not problems:
        raise StageError(f"{label}: no problems in split {split}", "The file or split is empty.")
    return problems


def _commit(label: str, context: Context[DataSettings]) -> str | None:
    commits: dict[str, str] = context.details.get("commits", {})
    return commits.get(label)


def _seed(source: SourceSettings, context: Context[DataSettings]) -> int:
    return context.seed if source.seed is None else source.seed


def _sft_rows(source: SourceSettings, label: str, context: Context[DataSettings]) -> list[Row]:
    if source.task is not None:
        task = get(source.task)
        problems = _load(task, source.split, source.rows, _seed(source, context), label, context)
        if task.demonstrate is None:
            raise StageError(f"{label}: {task.name} has no demonstrations", "Use another task, or a file with a completion column.")
        completions = task.demonstrate(problems, _seed(source, context))
        return [_sft_row(f"{task.name}/{p.id}", task.name, p.prompt, c) for p, c in zip(problems, completions, strict=True)]
    columns, name = source.columns, source.file or source.hub or ""
    if columns.completion is None:
        raise StageError(f"{label}: columns.completion is not set", "Name the column with the demonstration.")
    rows = _rows(source, label, context)
    origin = Path(name).name
    return [
        _sft_row(f"{origin}:{number}", origin, _prompt(row, source, label, number), _text(row, columns.completion, label, number))
        for number, row in rows
    ]


def _prompt(row: Mapping[str, Any], source: SourceSettings, label: str, number: int) -> str:
    prompt = _text(row, source.columns.prompt, label, number)
    return prompt if source.template is None else source.template.replace("{prompt}", prompt)


def _without_overlap(
    overlap: list[Hit], sft: list[Row], rl: list[Problem], context: Context[DataSettings]
) -> tuple[list[Row], list[Problem]]:
    """The training rows, or what is left of them. Raises `StageError` where overlap is to be refused."""
    settings, hits = context.settings, {hit.training for hit in overlap}
    share = len(hits) / (len(sft) + len(rl))
    if settings.on_overlap == "refuse" and share > settings.max_overlap_share:
        shown = "; ".join(str(hit) for hit in overlap[:3])
        raise StageError(
            f"{len(hits)} training prompts are benchmark problems, or hold long parts of one: {shown}",
            "Remove them, leave them out (data.on_overlap: drop), or keep them (note) and say so beside every score.",
        )
    if settings.on_overlap == "note":
        context.note(f"{len(hits)} training prompts are benchmark problems, or hold long parts of one; they stay (data.on_overlap: note)")
        return sft, rl
    context.note(f"{len(hits)} training prompts are left out: benchmark problems, or long parts of one")
    return [row for row in sft if row["id"] not in hits], [problem for problem in rl if problem.id not in hits]


def _check_dev(dev: list[Problem], trained: set[str], benchmarks: dict[str, list[Problem]], ngram: int | None) -> None:
    """Choosing by what was trained on, or by what is reported, would show in the result. Raises `StageError` where that is so."""
    seen = [problem.id for problem in dev if problem.prompt in trained]
    if seen:
        raise StageError(f"{len(seen)} problems of data.dev are training prompts too: {seen[0]}", "Take other rows, or another split.")
    reported = find_overlap({problem.id: problem.prompt for problem in dev}, benchmarks, ngram)
    if reported:
        raise StageError(f"{len(reported)} problems of data.dev are benchmark problems: {reported[0]}", "Choose by another split.")


def _sft_row(id: str, source: str, prompt: str, completion: str) -> Row:
    return {
        "id": id,
        "source": source,
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def _rl_problems(source: SourceSettings, label: str, context: Context[DataSettings]) -> list[Problem]:
    if source.task is not None:
        return _load(get(source.task), source.split, source.rows, _seed(source, context), label, context)
    columns, name = source.columns, source.file or source.hub or ""
    if columns.answer is None:
        raise StageError(f"{label}: columns.answer is not set", "Name the column with the gold answer.")
    origin = Path(name).name
    kind: Kind = "maths" if columns.tests is None else "code"
    problems = []
    for number, row in _rows(source, label, context):
        prompt, gold = _prompt(row, source, label, number), _text(row, columns.answer, label, number)
        tests = {} if columns.tests is None else _tests(row, columns.tests, label, number)
        problems.append(Problem(f"{origin}:{number}", origin, kind, prompt, gold, tests))
    return problems


def _tests(row: Mapping[str, Any], column: str, label: str, number: int) -> dict[str, Any]:
    """The tests of a code problem: an object, or the JSON text of one."""
    value = _value(row, column, label, number)
    try:
        return program_tests(json.loads(value) if isinstance(value, str) else value, f"{label}: row {number}")
    except ValueError as error:
        raise StageError(str(error), "Mend or remove that row; docs/own.md shows the object.") from None


def _rows(source: SourceSettings, label: str, context: Context[DataSettings]) -> list[tuple[int, Mapping[str, Any]]]:
    """(row number, row) of a dataset that is not a task of ours: a local file, or a hub dataset at its resolved commit."""
    import datasets

    try:
        if source.file is not None:
            path = Path(source.file).expanduser()
            if path.name.endswith((".jsonl", ".jsonl.gz")):
                rows: Iterable[tuple[int, Mapping[str, Any]]] = read_rows(path)
            elif path.suffix == ".parquet":
                rows = enumerate(datasets.Dataset.from_parquet(str(path), keep_in_memory=True), start=1)
            else:
                raise StageError(f"{label}: cannot read {path.name}", "Use a .jsonl, .jsonl.gz or .parquet file.")
        else:
            revision = _commit(label, context)
            # Streamed: of a dataset of fifty gigabytes only what is needed is fetched.
            streamed = datasets.load_dataset(
                source.hub,
                source.hub_config,
                data_files=source.hub_files or None,
                split=source.split,
                revision=revision,
                streaming=True,
            )
            rows = enumerate(streamed, start=1)
        taken = list(itertools.islice(_kept(rows, source, label, context), source.rows))
    except RecordError as error:
        raise StageError(f"{label}: {error}", "Mend or remove that line.") from error
    except (OSError, ValueError) as error:
        raise StageError(f"{label}: cannot be read: {error}", "Check the path, the split and the config of the dataset.") from error
    if not taken:
        kept = " that are kept: look at its `where` and `verified`" if source.where or source.verified else ""
        raise StageError(f"{label}: {source.file or source.hub} has no rows{kept}", "The dataset or split is empty, or nothing passes.")
    return taken


def _kept(
    rows: Iterable[tuple[int, Mapping[str, Any]]], source: SourceSettings, label: str, context: Context[DataSettings]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows that pass the source's conditions, graded in batches where the answer is verified."""
    passing = ((number, row) for number, row in rows if all(_value(row, c, label, number) == value for c, value in source.where.items()))
    if not source.verified:
        yield from passing
        return
    columns = source.columns
    assert columns.answer is not None  # checked by SourceSettings
    assert columns.completion is not None
    failed = 0
    with Grader(context.machine.threads) as grader:
        while batch := list(itertools.islice(passing, VERIFY_BATCH)):
            items = []
            for number, row in batch:
                gold = _text(row, columns.answer, label, number)
                items.append((Problem(str(number), "data", "maths", "", gold), _text(row, columns.completion, label, number), "stop"))
            for entry, graded in zip(batch, grader.grade(items), strict=True):
                if graded.verdict == "correct":
                    yield entry
                else:
                    failed += 1
    context.note(f"{label}: {failed} demonstrations are left out, their answer is not the gold one")


def _value(row: Mapping[str, Any], column: str, label: str, number: int) -> Any:
    if column not in row:
        raise StageError(f"{label}: row {number} has no column {column!r}; it has {', '.join(sorted(row))}", f"Set {label}.where.")
    return row[column]


def _text(row: Mapping[str, Any], column: str, label: str, number: int) -> str:
    if column not in row:
        raise StageError(f"{label}: row {number} has no column {column!r}; it has {', '.join(sorted(row))}", f"Set {label}.columns.")
    value = row[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise StageError(f"{label}: row {number}: column {column!r} is {value!r}, expected text", "Mend or remove that row.")
    return value


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
