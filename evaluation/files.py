"""The rows of local files, whichever common format they are in."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.records import RecordError, open_text, read_rows

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
"""Endings of files that rows are read from."""


def read_file(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number, row) of each row: of a .parquet table, of one array in a .json file, else of the lines of a .jsonl file.

    The number is the line of a .jsonl file, else counted from 1. The file is read itself: a cache that knows it by path
    and time of change (`datasets` has one) gives the old rows of a file that was replaced by one of the same time.

    Raises:
        RecordError: the file is damaged, or holds something else.
        OSError: it cannot be read.
    """
    if path.suffix == ".parquet":
        return enumerate(_table(path), start=1)
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


def _array(path: Path) -> list[dict[str, Any]]:
    try:
        with open_text(path) as file:
            rows = json.load(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"{path}: damaged: {error}") from error
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
