"""Fixtures of the evaluation's tests."""

from collections.abc import Iterator

import pytest

from evaluation.grading import Grader


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    """A grader with short limits, shared by a module's tests."""
    with Grader(workers=2, maths_timeout_s=2.0, code_timeout_s=1.0) as shared:
        yield shared
