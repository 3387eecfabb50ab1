"""A token weighting method out of a user's own file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from stages.harness.context import StageError
from stages.sft.method_settings import CustomSettings
from stages.sft.reweighting.base import Method


def load_method(settings: CustomSettings) -> Method:
    """Import `settings.file` and make its class; raises StageError with the user's own error where that fails."""
    fix = "Check `sft.method` (file, class_name, options); docs/methods.md has a complete example."
    path = Path(settings.file).expanduser()
    spec = importlib.util.spec_from_file_location("custom_method", path)
    if spec is None or spec.loader is None:
        raise StageError(f"{path}: not a Python file", fix)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up a class' annotations there
    try:
        spec.loader.exec_module(module)
        made = getattr(module, settings.class_name)(**settings.options)
    except (Exception, SystemExit) as error:  # whatever the user's code raises, said in one line
        raise StageError(f"{path}: {type(error).__name__}: {error}", fix) from error
    if not isinstance(made, Method):
        raise StageError(f"{path}: {settings.class_name} does not derive from stages.sft.reweighting.base.Method", fix)
    return made
