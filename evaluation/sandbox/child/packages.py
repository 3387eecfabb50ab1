"""Packages that programs may import (see `evaluation.sandbox.packages`): found by name, and loaded before there is any
program. What a program does to one is seen by no other, for each has a copy of this process' memory.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location

TYPE_CHECKING = False  # the name that type checkers know
if TYPE_CHECKING:
    from typing import Any


class Finder:
    """Finds modules at the top level in the files and folders that it is told; no folder that holds others is read."""

    def __init__(self, modules: dict[str, str], metadata: dict[str, str]) -> None:
        self._modules, self._metadata = modules, metadata

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's spec, or None where it is none of these."""
        place = self._modules.get(name)
        if place is None:
            return None
        if not os.path.isdir(place):
            return spec_from_file_location(name, place)
        start = os.path.join(place, "__init__.py")
        if os.path.exists(start):
            return spec_from_file_location(name, start, submodule_search_locations=[place])
        spec = ModuleSpec(name, None, is_package=True)  # a namespace package
        spec.submodule_search_locations = [place]
        return spec

    def find_distributions(self, context: Any) -> list[Any]:
        """Distributions of that name, or all: packages ask for their own version."""
        import re
        from importlib.metadata import PathDistribution
        from pathlib import Path

        asked = None if context.name is None else re.sub(r"[-_.]+", "-", context.name).lower()
        folders = [folder for name, folder in self._metadata.items() if asked in (None, name)]
        return [PathDistribution(Path(folder)) for folder in folders]


def load(modules: dict[str, str], metadata: dict[str, str], loaded: tuple[str, ...]) -> str:
    """Have programs find the modules and their metadata (see `Packages`), and load some. What went wrong, or
    nothing."""
    if not modules:
        return ""
    sys.meta_path.append(Finder(modules, metadata))
    for name in loaded:
        try:
            __import__(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, no program could import it either
            return f"the package {name} cannot be loaded: {type(error).__name__}: {error}".replace("\n", " ")[:500]
        if len(os.listdir("/proc/self/task")) > 1:
            return f"the package {name} starts threads when it is loaded, so that programs cannot have it"
    return ""


def begin_anew() -> None:
    """Seed numpy's own generator again, as the standard library does with its: what was forked has one state."""
    if (random := sys.modules.get("numpy.random")) is not None:
        random.seed()
