"""Code out of a user's own file: a token weighting method or a reward function."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TypeVar

from stages.harness.context import StageError

T = TypeVar("T")
NO_DIGESTS: Mapping[str, str] = MappingProxyType({})
"""Custom file -> the sha256 that it has to have: nothing is compared."""


def load_custom(file: str, take: Callable[[ModuleType], T], fix: str, digest: str | None = None) -> T:
    """Import a user's file, and `take` from the module what is needed.

    What runs is what was read and compared: a file that is edited later, during a long training, changes nothing.

    Args:
        digest: sha256 that the stage's key stands for; None compares nothing.

    Raises:
        StageError: the file cannot be read, is not what the key stands for, or it or `take` raised; with that error.
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
    if digest is not None and sha256(source).hexdigest() != digest:
        raise StageError(f"{path} changed after this run was planned", "Run it again: it is planned anew.")
    sys.modules[name] = module  # as an import does: dataclasses look up the module of their annotations there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        return take(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises, said in one line
        raise StageError(f"{path}: {type(error).__name__}: {error}", fix) from error
