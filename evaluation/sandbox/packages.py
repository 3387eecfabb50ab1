"""Packages of this environment that programs may import: where they lie, and what they need.

Programs have the standard library alone, unless packages are named. A named one comes with the distributions that its
metadata declares as required, without extras, and each with everything that it installed at the top of its folder:
`numpy`, and `numpy.libs` with its shared libraries. Nothing else of the folder can be imported or, under the rules on
files or in namespaces, read.
"""

import dataclasses
import importlib.machinery
import os
import re
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables by which numerical libraries are told to start no threads: a process with threads cannot be
forked, and a program's processor time is that of one core."""
_SUFFIXES = tuple(importlib.machinery.all_suffixes())


class UnknownPackage(ValueError):
    """A package that is not installed, or not in a way in which it can be shown to programs."""


@dataclasses.dataclass(frozen=True)
class Packages:
    """What programs get beside the standard library."""

    modules: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name at the top level -> its file, or its folder."""
    paths: tuple[str, ...] = ()
    """Files and folders that hold them and what they need."""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    """Distribution -> the folder with its metadata."""
    loaded: tuple[str, ...] = ()
    """Modules that are loaded before programs start, and not by each of them."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Distribution -> version, of those named and those they need."""


def find_packages(names: Sequence[str]) -> Packages:
    """The packages with these names (of distributions: `numpy`, `scikit-learn`) in this environment.

    Raises:
        UnknownPackage: one of them, or one that it needs, is not installed, or keeps no list of its files.
    """
    modules: dict[str, str] = {}
    metadata: dict[str, str] = {}
    loaded: list[str] = []
    places: list[str] = []
    versions: dict[str, str] = {}
    todo = [(name, "") for name in reversed(names)]
    while todo:
        name, by = todo.pop()
        try:
            found = distribution(name)
        except (PackageNotFoundError, ValueError) as error:
            needed = f", which {by} needs," if by else ""
            raise UnknownPackage(f"{name}{needed} is not installed here") from error
        own = canonical(found.metadata["Name"])
        tops = _tops(found, own)
        importable = _modules(tops)
        if not by:
            loaded += _main_modules(own, importable)
        if own in versions:
            continue
        versions[own] = found.version
        modules |= importable
        metadata.update((own, path) for path in tops if path.endswith((".dist-info", ".egg-info")))
        places += tops
        from packaging.requirements import Requirement  # of no use, and perhaps not there, where none are named

        needs = [Requirement(text) for text in found.requires or ()]
        todo += [(need.name, own) for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    ordered = dict(sorted(versions.items()))
    return Packages(modules, tuple(dict.fromkeys(places)), metadata, tuple(dict.fromkeys(loaded)), ordered)


def canonical(name: str) -> str:
    """The one form of a distribution's name: scikit-learn for Scikit_Learn."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _tops(found: Distribution, name: str) -> list[str]:
    """Paths of the files and folders that a distribution has at the top of the folder it is installed in."""
    if found.files is None:
        raise UnknownPackage(f"{name}: its metadata does not list its files; install it from a wheel, with pip")
    tops = dict.fromkeys(file.parts[0] for file in found.files if file.parts[0] not in ("..", "/", "__pycache__"))
    folder = os.path.realpath(str(found.locate_file("")))
    paths = [os.path.join(folder, top) for top in tops if not top.endswith(".pth")]
    return [path for path in paths if os.path.exists(path)]


def _modules(paths: Sequence[str]) -> dict[str, str]:
    modules = {}
    for path in paths:
        name, _, rest = os.path.basename(path).partition(".")
        is_module = not rest if os.path.isdir(path) else path.endswith(_SUFFIXES)
        if is_module and name.isidentifier():
            modules[name] = path
    return modules


def _main_modules(name: str, modules: dict[str, str]) -> list[str]:
    """What a named distribution is imported as: the module of its own name, or else all that are not private."""
    own = [module for module in modules if canonical(module) == name]
    found = own or [module for module in modules if not module.startswith("_")]
    if not found:
        raise UnknownPackage(f"{name}: nothing of it can be imported from its own files (an editable installation?)")
    return found
