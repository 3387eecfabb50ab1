"""Sandboxes of each kind, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from evaluation.sandbox import Sandbox
from tests.evaluation.sandbox.cases import require_namespaces


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(memory_mib=512) as shared:
        yield shared


@pytest.fixture
def isolated(sandbox: Sandbox) -> Sandbox:
    return require_namespaces(sandbox)


@pytest.fixture(scope="module")
def unfiltered() -> Iterator[Sandbox]:
    """Namespaces alone: what they hold must hold without the filter of system calls and the rules on files."""
    with Sandbox(memory_mib=512, call_filter=False, file_rules=False) as shared:
        yield require_namespaces(shared)


@pytest.fixture(scope="module", params=["namespaces", "rlimits"])
def ruled(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The rules on files, which must hold without the filter of system calls."""
    with Sandbox(
        memory_mib=512, level=None if request.param == "namespaces" else "rlimits", call_filter=False
    ) as shared:
        if not shared.ruled or shared.level != request.param:
            pytest.skip("NOT TESTED: no Landlock, or no namespaces, on this machine")
        yield shared


@pytest.fixture(scope="module", params=["namespaces", "rlimits"])
def filtered(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(memory_mib=512, level=None if request.param == "namespaces" else "rlimits") as shared:
        if not shared.filtered or shared.level != request.param:
            pytest.skip("NOT TESTED: no filter of system calls, or no namespaces, on this machine")
        yield shared
