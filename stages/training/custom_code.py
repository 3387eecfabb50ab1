"""Code out of a user's own file: a token weighting method or a reward function."""

import importlib.util
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from stages.harness.context import StageError

T = TypeVar("T")


def load_custom(file: str, take: Callable[[ModuleType], T], fix: str) -> T:
    """Import a user's file, and `take` from the module what is needed.

    Raises:
        StageError: the file is not Python, or the import or `take` raised; with that error, and `fix`.
    """
    path = Path(file).expanduser()
    name = f"custom_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StageError(f"{path}: not a Python file", fix)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: dataclasses look up the module of their annotations there
    try:
        spec.loader.exec_module(module)
        return take(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises, said in one line
        raise StageError(f"{path}: {type(error).__name__}: {error}", fix) from error
