"""Fixtures of the evaluation's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.grading import Grader


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """Folder with local copies of the benchmarks; nothing of them is part of the project."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"
    folder = Path(os.environ.get("VCORE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(
            f"NOT TESTED ON REAL DATA: no folder {folder}; set VCORE_TEST_DATA to local copies of the benchmarks"
        )
    return folder


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    """A grader with short limits, shared by a module's tests."""
    with Grader(workers=2, maths_timeout_s=2.0, code_timeout_s=1.0) as shared:
        yield shared
