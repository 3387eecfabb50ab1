"""Benchmarks, each loaded by its name. Importing this package imports none of them."""

import importlib
from collections.abc import Iterable
from functools import cache

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.catalogue import CATALOGUE
from evaluation.harness.nearest import nearest

__all__ = ["Benchmark", "Source", "get", "modules", "names"]


def names() -> tuple[str, ...]:
    """The names of all benchmarks."""
    return tuple(CATALOGUE)


@cache
def get(name: str) -> Benchmark:
    """The benchmark called `name`; imports its module. Raises `ValueError` that names the nearest ones."""
    if name not in CATALOGUE:
        raise ValueError(f"unknown benchmark {name!r}{nearest(name, CATALOGUE)}")
    (module,) = modules([name])
    defined = vars(importlib.import_module(module)).values()
    return next(value for value in defined if isinstance(value, Benchmark) and value.name == name)


def modules(benchmarks: Iterable[str]) -> tuple[str, ...]:
    """The modules of these benchmarks, for the key of a stage that loads them by name."""
    return tuple(sorted({f"{__name__}.{CATALOGUE[name].module}" for name in benchmarks}))
