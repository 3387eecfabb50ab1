"""Reading sources: the problems of our tasks, and the rows of files and hub datasets, chosen and checked one by one."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.base import Benchmark
from evaluation.grading import Grader, Item
from evaluation.hub import load_dataset
from evaluation.loading import NoneChosen, load, read_file
from evaluation.records import Problem, RecordError
from evaluation.sandbox import SandboxError
from stages.data.programs import row_tests
from stages.data.settings import DataSettings, SourceSettings
from stages.data.turns import answers_of, gold_of
from stages.data.values import value_of
from stages.harness.context import Context, StageError

Numbered = tuple[int, Mapping[str, Any]]
"""A row and its number: the line of a .jsonl file, else counted from 1, in the order in which rows are drawn."""

VERIFY_BATCH = 256
"""Demonstrations graded at once."""
MAX_GRADER_ERROR_SHARE = 0.01
"""Share of the graded demonstrations that the grader itself may fail on, as in scoring (`max_grader_error_share`)."""
SHUFFLE_BUFFER = 20_000
"""Rows of a hub dataset that are held to draw the next one from: some hundred megabytes of long demonstrations."""


def load_task(
    benchmark: Benchmark,
    split: str,
    n: int | None,
    seed: int,
    label: str,
    ctx: Context[DataSettings],
    *,
    shuffle: bool = False,
    where: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """`n` problems of a task of ours: the first that `where` keeps, or with `shuffle` any. Raises `StageError`."""
    limit, commit = None if shuffle else n, _commit(label, ctx)
    try:
        problems = load(benchmark, split, ctx.machine.data_dir, limit, seed, revision=commit, where=where)
    except (ValueError, OSError) as error:  # RecordError, LoadError, and generated problems that do not turn up
        fix = "Check the file, or data_dir; the expected columns are in docs/data.md."
        fix = "Choose others, or leave where out." if isinstance(error, NoneChosen) else fix
        raise StageError(f"{label}: {error}", fix) from error
    if not problems:
        raise StageError(f"{label}: no problems in split {split}", "The file or split is empty.")
    return list(itertools.islice(_shuffled(problems, seed), n)) if shuffle else problems


def seed_of(source: SourceSettings, ctx: Context[DataSettings]) -> int:
    """The source's own seed, or the pipeline's."""
    return ctx.seed if source.seed is None else source.seed


def read(
    source: SourceSettings, label: str, ctx: Context[DataSettings], dropped: list[Dropped] | None = None
) -> list[Numbered]:
    """The rows of a local file, or of a hub dataset at its resolved commit, that are kept, at most `source.rows` of
    them. Those that are read and not verified are added to `dropped`.

    Raises:
        StageError: the source cannot be read, a row is broken, none is kept, or the grader itself failed on too many.
    """
    from datasets.exceptions import DatasetsError

    passed = _Passed()
    try:
        kept = _kept(_all_rows(source, label, ctx), source, label, ctx, passed)
        taken = list(itertools.islice(kept, source.rows))
    except RecordError as error:
        of_a_line = re.search(r":\d+: |: row \d+", str(error)) is not None
        fix = "Correct or remove that line." if of_a_line else "Get the file anew, or write it anew."
        raise StageError(f"{label}: {error}", fix) from error
    except (OSError, ValueError, DatasetsError) as error:
        raise StageError(
            f"{label}: cannot be read: {error}", "Check the path, the split and the config of the dataset."
        ) from error
    _check_grader(passed, label)
    if dropped is not None:
        dropped += passed.dropped
    if source.verified:
        ctx.note(f"{label}: {len(passed.dropped)} demonstrations are left out, their answer is not the gold one")
    elif source.verify is not None:
        ctx.note(f"{label}: {_counted(passed.dropped)}")
    name = source.file or source.hub
    if not passed.read:
        raise StageError(f"{label}: {name} has no rows", "The file, dataset or split is empty.")
    if not taken:
        reason = f"none of {passed.read} passes `where` (the first: {passed.first})"
        if passed.where:
            reason = f"of {passed.read}, {passed.where} pass `where`, and none is verified"
            if passed.dropped:
                one = passed.dropped[0]
                reason += f"; row {one.row} is {one.verdict}: {one.detail}" if one.detail else ""
        fix = f"Look at {label}.where and {label}.verified."
        if source.verify is not None:
            fix = f"Look at {label}.where, {label}.columns.tests and the programs."
        raise StageError(f"{label}: {name} has no rows that are kept: {reason}", fix)
    if source.rows is not None and len(taken) < source.rows:
        ctx.note(f"{label}: {name} has {len(taken)} rows that are kept, and {source.rows} were asked for")
    return taken


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A demonstration that is left out, for the grader's verdict on it."""

    source: str
    row: int
    verdict: str
    detail: str


def _counted(dropped: Sequence[Dropped]) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(Counter(one.verdict for one in dropped).items()))
    left_out = f"{len(dropped)} demonstrations are left out, their programs do not pass their tests"
    return f"{left_out} ({counts}; dropped.jsonl)" if dropped else "all demonstrations pass their tests"


@dataclasses.dataclass
class _Passed:
    """How many rows were read, how many of them pass `where`, and how many of these were graded; what the first has in
    its columns; and those that are left out, among them those that the grader failed on."""

    read: int = 0
    where: int = 0
    graded: int = 0
    first: str = ""
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    failed: list[Dropped] = dataclasses.field(default_factory=list)


def _check_grader(passed: _Passed, label: str) -> None:
    """Raises `StageError` where the grader itself failed on too many: to leave these out would be to leave out rows for
    what is wrong with this machine or with their tests, and not with their programs."""
    if len(passed.failed) > MAX_GRADER_ERROR_SHARE * passed.graded:
        one = passed.failed[0]
        raise StageError(
            f"{label}: the grader failed on {len(passed.failed)} of {passed.graded} demonstrations; "
            f"the first: row {one.row}: {one.detail}",
            f"Put right what the message names, or leave such rows out; {MAX_GRADER_ERROR_SHARE:.0%} may fail.",
        )


def _commit(label: str, ctx: Context[DataSettings]) -> str | None:
    commits: dict[str, str] = ctx.details.get("commits", {})
    return commits.get(label)


def _all_rows(source: SourceSettings, label: str, ctx: Context[DataSettings]) -> Iterable[Numbered]:
    """Every row, in the source's order or drawn at random."""
    seed = seed_of(source, ctx)
    if source.file is None:
        # Streamed: of a dataset of fifty gigabytes only what is needed is fetched.
        assert source.hub is not None
        commit, files = _commit(label, ctx), source.hub_files
        streamed = load_dataset(source.hub, source.hub_config, source.split, commit, files=files, streaming=True)
        return enumerate(
            streamed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER) if source.shuffle else streamed, start=1
        )
    rows = read_file(Path(source.file).expanduser())
    return _shuffled(list(rows), seed) if source.shuffle else rows


def _shuffled(rows: Sequence[Any], seed: int) -> Iterator[Any]:
    """All rows in an order that the seed decides: the first few are a sample, and a larger sample holds the smaller."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return (rows[place] for place in order)


def _kept(
    rows: Iterable[Numbered], source: SourceSettings, label: str, ctx: Context[DataSettings], passed: _Passed
) -> Iterator[Numbered]:
    """The rows that pass the source's conditions, graded in batches where the answer is verified."""
    passing = _passing(rows, source, label, passed)
    if not source.verified and source.verify is None:
        yield from passing
        return
    with Grader(ctx.machine.threads, packages=ctx.settings.packages) as grader:
        if source.verify is not None:
            try:
                grader.start_sandbox()
            except SandboxError as error:
                fix = "vcore doctor says what the machine lacks."
                raise StageError(f"{label}: no programs can be run: {error}", fix) from error
        while batch := list(itertools.islice(passing, VERIFY_BATCH)):
            items = [_item(row, source, label, number) for number, row in batch]
            found = list(zip(batch, grader.grade(items), strict=True))
            passed.graded += len(found)
            unkept = {row: Dropped(label, row, g.verdict, g.detail) for (row, _), g in found if g.verdict != "correct"}
            passed.failed += [one for one in unkept.values() if one.verdict == "grader_error"]
            for entry, _ in found:
                if entry[0] in unkept:
                    passed.dropped.append(unkept[entry[0]])
                else:
                    yield entry


def _item(row: Mapping[str, Any], source: SourceSettings, label: str, number: int) -> Item:
    """A demonstration, for the grader."""
    columns = source.columns
    completion = answers_of(row, source, label, number)[-1][1]["content"]
    gold = "" if columns.answer is None else gold_of(row, columns.answer, label, number)
    if source.verified:
        return Problem(str(number), "data", "maths", "", gold), completion, "stop"
    tests = row_tests(row, columns, gold, label, number, language=source.language, demonstrated=True)
    return Problem(f"{label}:{number}", "data", "code", "", gold, tests), completion, "stop"


def _passing(rows: Iterable[Numbered], source: SourceSettings, label: str, passed: _Passed) -> Iterator[Numbered]:
    for number, row in rows:
        values = {column: value_of(row, column, label, number, "where") for column in source.where}
        passed.first = passed.first or ", ".join(f"{column} {value!r:.60}" for column, value in values.items())
        passed.read += 1
        pairs = [(value, source.where[column]) for column, value in values.items()]
        # 1 is not True here, as it is not in JSON.
        if all(one == other and isinstance(one, bool) == isinstance(other, bool) for one, other in pairs):
            passed.where += 1
            yield number, row
