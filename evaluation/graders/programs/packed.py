"""Cases in a file of their own, for tests of hundreds of megabytes, which no record should hold.

One gzip file for each problem: JSON objects with input and output, one a line. `Problem.tests` has its name, below the
folder of the file that holds the problem, and the sha256 of its lines. It is read line by line, so that a grader never
holds more than some cases.
"""

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LEVEL = 1  # of compression: at the highest, packing takes longer than grading


class PackedError(ValueError):
    """Cases that are missing, damaged, or others than were packed."""


def pack(cases: Iterable[Mapping[str, Any]], file: Path) -> dict[str, Any]:
    """Write cases to a file; what `tests["packed"]` holds: `file` (its path), `cases` (how many), `sha256`."""
    sha256, number = hashlib.sha256(), 0
    with open(file, "wb") as raw, gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed:
        for case in cases:
            line = json.dumps(dict(case), sort_keys=True).encode() + b"\n"
            sha256.update(line)
            packed.write(line)
            number += 1
    return {"file": str(file), "cases": number, "sha256": sha256.hexdigest()}


def read(stored: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The cases that `pack` wrote, one at a time.

    Raises:
        PackedError: they cannot be read, or are others; where only the end tells, after the last of them.
    """
    sha256, number = hashlib.sha256(), 0
    try:
        with gzip.open(stored["file"], "rb") as file:
            for line in file:
                sha256.update(line)
                number += 1
                yield json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise PackedError(f"the cases cannot be read: {type(error).__name__}: {error}") from error
    if sha256.hexdigest() != stored["sha256"]:
        raise PackedError(f"the {number} cases in {stored['file']} are not those that were packed")


def identity(tests: Mapping[str, Any]) -> dict[str, Any]:
    """Tests without the place where their cases lie, which changes nothing."""
    stored = tests.get("packed")
    return dict(tests) if stored is None else {**tests, "packed": {**stored, "file": ""}}


def moved(tests: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """The tests with their cases copied to the file `name` below a folder, and named relative to it, as
    `evaluation.records.read_records` expects it of a file in that folder."""
    stored = tests.get("packed")
    if stored is None:
        return tests
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(stored["file"], folder / name)
    return {**tests, "packed": {**stored, "file": name}}
