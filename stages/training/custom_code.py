"""Code out of a user's own file: a token weighting method or a reward function."""

import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TypeVar

from stages.harness.context import StageError

T = TypeVar("T")
NO_DIGESTS: Mapping[str, str] = MappingProxyType({})
"""File -> the sha256 that it has to have: nothing is compared."""


def load_custom(file: str, take: Callable[[ModuleType], T], fix: str, digests: Mapping[str, str] = NO_DIGESTS) -> T:
    """Import a user's file, and `take` from the module what is needed. It may import modules that lie beside it.

    What runs is what was read and compared: a file that is edited later, during a long training, changes nothing.

    Args:
        digests: absolute path of every file of the user's that the stage's key stands for -> sha256.

    Raises:
        StageError: the file cannot be read; a file is not what the key stands for; a module is loaded that the key
            does not have; or the file or `take` raised, with that error.
    """
    path = Path(file).expanduser()
    name = f"custom_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise StageError(f"{path}: not a Python file", fix)
    module = importlib.util.module_from_spec(spec)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}", fix) from error
    _compare(digests)
    if (folder := str(path.parent.resolve())) not in sys.path:
        sys.path.append(folder)  # last, so that nothing there takes the place of an installed module
    before, prefix = set(sys.modules), sys.pycache_prefix
    # Compiled files are found by time and size alone, and may be those of other content.
    sys.pycache_prefix = os.devnull
    sys.modules[name] = module  # as an import does: dataclasses look up the module of their annotations there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        taken = take(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises, said in one line
        raise StageError(f"{path}: {type(error).__name__}: {error}", fix) from error
    finally:
        sys.pycache_prefix = prefix
    if digests:
        _refuse_unplanned(path, before, digests)
        _compare(digests)  # again: what was imported had been read before
    return taken


def _compare(digests: Mapping[str, str]) -> None:
    for file, digest in digests.items():
        try:
            same = sha256(Path(file).read_bytes()).hexdigest() == digest
        except OSError:
            same = False
        if not same:
            raise StageError(f"{file} changed after this run was planned", "Run it again: it is planned anew.")


def _refuse_unplanned(path: Path, before: set[str], digests: Mapping[str, str]) -> None:
    """Refuse modules of packages that were loaded for this file, are not installed, and are not in the key."""
    paths = sysconfig.get_paths()
    installed = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()]
    installed += [site.getusersitepackages(), str(Path(__file__).resolve().parents[2])]
    for name in sorted(sys.modules.keys() - before):
        file = getattr(sys.modules[name], "__file__", None)
        if (
            file is None
            or not os.path.isabs(file)
            or name.partition(".")[0] in before
            or os.path.realpath(file) in digests
        ):
            continue
        if not any(Path(file).resolve().is_relative_to(Path(folder).resolve()) for folder in installed):
            raise StageError(
                f"{path} loads {file} in a way that a plan cannot see, so the stage's key does not have it",
                f"Import it by a statement (`import {name}`) from a folder of PYTHONPATH or beside {path.name}.",
            )
