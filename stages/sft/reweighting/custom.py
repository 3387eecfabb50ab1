"""A token weighting method out of a user's own file."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from stages.harness.context import StageError
from stages.sft.method_settings import CustomSettings
from stages.sft.reweighting.base import Method
from stages.training.custom_code import NO_DIGESTS, load_custom


def load_method(settings: CustomSettings, digests: Mapping[str, str] = NO_DIGESTS) -> Method:
    """Import `settings.file` and make its class; raises StageError with the user's own error where that fails.

    Args:
        digests: file -> the sha256 that it has to have; see `load_custom`.
    """
    fix = "Check `sft.method` (file, class_name, options); docs/methods.md has a complete example."

    def make(module: ModuleType) -> object:
        return getattr(module, settings.class_name)(**settings.options)

    made = load_custom(settings.file, make, fix, digests)
    if not isinstance(made, Method):
        path = Path(settings.file).expanduser()
        raise StageError(f"{path}: {settings.class_name} does not derive from stages.sft.reweighting.base.Method", fix)
    return made
