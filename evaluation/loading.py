"""Reading the problems of a benchmark: from a file below a data folder, from the hub, or made from a seed."""

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.graders.programs import packed
from evaluation.hub import load_dataset
from evaluation.records import KeyTwice, Problem, RecordError, line_not_text, one_of_each, open_text, read_rows

LONGEST_CELL = 2**31 - 1
"""Characters of one cell of a .csv table."""


class LoadError(ValueError):
    """Problems that cannot be loaded: no such split, no such file, or no answer from the hub."""


class NoneChosen(LoadError):
    """`where` asks for values that no problem has."""


def read_source(
    source: Source, split: str, data_dir: str | Path | None = None, revision: str | None = None
) -> Iterator[Mapping[str, Any]]:
    """The rows of one split.

    Args:
        source: names the local file and the hub's data set.
        split: the benchmark's name of the split, for messages.
        data_dir: folder with local copies. Where it is given, the file below it is read, and its absence is an error,
            never a reason to go to the hub. None: the hub, or what its cache holds.
        revision: commit of the hub's data set; None takes the source's own.

    Raises:
        LoadError: the file is missing, or the hub's data set cannot be loaded.
        RecordError: a line is not a JSON object.
    """
    if source.rows_in:
        yield from _rows_of_folder(source, split, data_dir, revision or source.revision)
        return
    if data_dir is not None:
        local = Path(data_dir).expanduser() / source.local
        for path in [local / file for file in source.files] or [local]:
            if not path.is_file():
                raise LoadError(f"{split}: {path} does not exist (the local copy of {source.origin or source.hub})")
            yield from (row for _, row in read_file(path, loose_csv=source.loose_csv))
        return
    if source.files:
        yield from _hub_files(source, split, revision or source.revision)
        return
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(source.hub, source.hub_config, source.hub_split, revision or source.revision)
    except (DatasetsError, OSError, ValueError) as error:  # offline, unknown name or revision, unknown config or split
        raise LoadError(
            f"{split}: the hub's {source.hub} ({source.hub_split}) cannot be loaded: {type(error).__name__}: {error}; "
            f"without the hub, put {source.local} below a local data folder"
        ) from error
    yield from rows


def _rows_of_folder(
    source: Source, split: str, data_dir: str | Path | None, revision: str
) -> Iterator[Mapping[str, Any]]:
    """The rows in one file of a folder, each with the folder. Raises `LoadError`."""
    if data_dir is not None:
        folder = Path(data_dir).expanduser() / source.local
    else:
        folder = _hub_folder(source, split, revision)
    if not (folder / source.rows_in).is_file():
        raise LoadError(f"{split}: {folder / source.rows_in} does not exist ({folder} is a copy of {source.hub})")
    yield from ({**row, "folder": str(folder)} for _, row in read_rows(folder / source.rows_in))


def _hub_folder(source: Source, split: str, revision: str) -> Path:
    """The source's whole repository on the hub. Raises `LoadError`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(source.hub, repo_type="dataset", revision=revision))
    except (HfHubHTTPError, OSError, ValueError) as error:  # offline, or no such revision
        raise LoadError(
            f"{split}: the hub's {source.hub} cannot be loaded: {type(error).__name__}: {error}; "
            f"without the hub, put a copy of it below a local data folder as {source.local}"
        ) from error


def _hub_files(source: Source, split: str, revision: str) -> Iterator[Mapping[str, Any]]:
    """The rows of the source's files on the hub, one file after the other. Raises `LoadError`."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    for file in source.files:
        try:
            path = hf_hub_download(source.hub, file, repo_type="dataset", revision=revision)
        except (HfHubHTTPError, OSError, ValueError) as error:  # offline, no such revision or file
            raise LoadError(
                f"{split}: the hub's {source.hub} ({file}) cannot be loaded: {type(error).__name__}: {error}; "
                f"without the hub, put {source.local}/{file} below a local data folder"
            ) from error
        yield from (row for _, row in read_rows(path))


def read_file(path: Path, *, loose_csv: bool = False) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number, row) of each row of a .parquet or .csv table, of one array in a .json file, or else of a .jsonl file.

    The number is the line of a .jsonl file, else counted from 1. The file is read itself: a cache that knows it by path
    and time of change (`datasets` has one) gives the old rows of a file that was replaced by one of the same time.

    Args:
        path: the file.
        loose_csv: whether a .csv table may have quotation marks in the wrong place, and rows with too few cells (None).

    Raises:
        RecordError: the file is damaged, or holds something else.
        OSError: it cannot be read.
    """
    if path.suffix == ".parquet":
        return enumerate(_table(path), start=1)
    if path.name.removesuffix(".gz").endswith(".csv"):
        return enumerate(_comma_separated(path, loose_csv), start=1)
    if path.name.removesuffix(".gz").endswith(".json"):
        return enumerate(_array(path), start=1)
    return read_rows(path)


def _table(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise RecordError(f"{path}: not a Parquet table: {error}") from error


def _comma_separated(path: Path, loose: bool) -> Iterator[dict[str, Any]]:
    """Rows by the names in the first line. Strict, so that a missing quotation mark, which makes one cell of many rows,
    is an error; `loose` allows marks in the wrong place, and cells that a short row lacks are None."""
    csv.field_size_limit(LONGEST_CELL)  # of the process; the library's own is 131,072
    number = 0
    try:
        with open_text(path, newline="") as file:  # the parser has to see line ends in cells as they are
            reader = csv.DictReader(file, strict=not loose)
            names = reader.fieldnames or []
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise RecordError(f"{path}: the first line has {', '.join(map(repr, twice))} twice")
            for number, row in enumerate(reader, start=1):
                if None in row:
                    raise RecordError(f"{path}: row {number} has more cells than the first line has names")
                if not loose and None in row.values():
                    raise RecordError(f"{path}: row {number} has fewer cells than the first line has names")
                yield row
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: line {line_not_text(path)} is not text in UTF-8 ({error.reason})") from error
    except (csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"{path}: not a table of comma-separated values in UTF-8, after row {number}"
        raise RecordError(f"{where}: {error}") from error


def _array(path: Path) -> list[dict[str, Any]]:
    try:
        with open_text(path) as file:
            rows = json.load(file, object_pairs_hook=one_of_each)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"{path}: damaged: {error}") from error
    except KeyTwice as error:
        raise RecordError(f"{path}: in an object {error}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a JSON array: {error}; one object a line is a .jsonl file") from error
    if not isinstance(rows, list):
        raise RecordError(
            f"{path}: expected a JSON array of objects, found {type(rows).__name__}; one object a line is a .jsonl file"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RecordError(f"{path}: row {number}: expected a JSON object, found {type(row).__name__}")
    return rows


def digest(problems: Iterable[Problem]) -> str:
    """Twelve hexadecimal digits of all that decides a prompt or a verdict, problem by problem in their order.

    That is id, kind, prompt, turns before it, gold answer, tests, and the beginning that a completion prompt sends: the
    same tasks with other test inputs (HumanEval+ and its small edition) are another set. HumanEval+, seven megabytes of
    inputs, takes half a second.
    """
    sha256 = hashlib.sha256()
    for p in problems:
        # Only the tests' own names are sorted: the order of a dict among the inputs is part of the input.
        tests = sorted(packed.identity(p.tests).items())
        content: list[Any] = [p.id, p.kind, p.prompt, p.gold, tests, p.meta.get("completion")]
        content += [p.context] if p.context else []
        sha256.update(json.dumps(content).encode() + b"\n")
    return sha256.hexdigest()[:12]


def load(
    benchmark: Benchmark,
    split: str = "test",
    data_dir: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """The problems of one split, always in the same order.

    Args:
        benchmark: which problems.
        split: one of `benchmark.splits`.
        data_dir: folder with local copies; None: the hub.
        limit: how many problems, the first ones; a generated benchmark, which makes so many, needs it. Sets that are
            read have to be complete all the same.
        seed: seed of generated problems; without effect on others.
        revision: commit of the hub's data set; None takes the source's own.
        where: only problems whose `meta` has these values, `{"level": 1}`, or values from one to another, both included
            (`{"contest_date": {"from": "2024-08-01", "to": "2025-01-31"}}`, either end); without effect on generated
            ones.

    Raises:
        LoadError: no such split, a generated benchmark without `limit`, or a source that cannot be read.
        NoneChosen: no problem that `where` asks for.
        RecordError: a row or the whole set is not as it should be.
    """
    if split not in benchmark.splits:
        raise LoadError(f"{benchmark.name} has no split {split!r}; it has {', '.join(benchmark.splits)}")
    if benchmark.generate is not None:
        if limit is None:
            raise LoadError(f"{benchmark.name} is generated: say how many problems")
        return benchmark.generate(split, limit, seed)
    assert benchmark.parse is not None  # Benchmark holds exactly one of the two
    problems = benchmark.parse(split, read_source(benchmark.sources[split], split, data_dir, revision))
    for name, value in (where or {}).items():
        problems = _having(name, value, problems)
    return problems[:limit]


def _having(name: str, value: Any, problems: list[Problem]) -> list[Problem]:
    """The problems with this value in `meta`, or one within these, at least one. Raises `LoadError`."""
    # As JSON, in which 1 is not true.
    has = [json.dumps(problem.meta.get(name)) for problem in problems]
    if isinstance(value, Mapping):
        kept = [problem for problem in problems if _within(problem.meta.get(name), value)]
    else:
        kept = [problem for problem, found in zip(problems, has, strict=True) if found == json.dumps(value)]
    if not kept:
        values = sorted({f"{found:.40}" for found in has} - {"null"})[:10]
        entries = sorted({entry for problem in problems for entry in problem.meta})
        there = f"there is {', '.join(values)}" if values else f"they note {', '.join(entries) or 'nothing'}"
        raise NoneChosen(f"where: no problem has {name} {json.dumps(value)}; {there}")
    return kept


def _within(found: Any, window: Mapping[str, Any]) -> bool:
    """Whether a value is of the type of the window's ends, and between them. Ends that are texts are dates: of a time
    of day the date counts."""
    found = found[: len("2025-01-31")] if isinstance(found, str) else found
    ends = [end for end in (window.get("from"), window.get("to")) if end is not None]
    if any(type(found) is not type(end) for end in ends):
        return False
    return bool(window.get("from", found) <= found <= window.get("to", found))
