"""A token weighting method out of a user's own file, held to what weights must be: a finite number for each token."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.method_settings import CustomSettings
from stages.sft.reweighting.base import Method, Prepared
from stages.training.custom_code import NO_DIGESTS, load_custom

FIX = "Check `sft.method` (file, class_name, options); docs/methods.md has a complete example."
PASSED_ON = (StageError, torch.OutOfMemoryError, MemoryError, OSError)
"""Errors that the stage knows, whoever raises them: it may be tried again with more memory or disk."""


def load_method(settings: CustomSettings, digests: Mapping[str, str] = NO_DIGESTS) -> Method:
    """Import `settings.file` and make its class; raises StageError with the user's own error where that fails.

    So does the `weigh` of what is returned, where the user's raises or gives no weights.

    Args:
        digests: file -> the sha256 that it has to have; see `load_custom`.
    """

    def make(module: ModuleType) -> object:
        return getattr(module, settings.class_name)(**settings.options)

    made = load_custom(settings.file, make, FIX, digests)
    path = Path(settings.file).expanduser()
    if not isinstance(made, Method):
        raise StageError(f"{path}: {settings.class_name} does not derive from stages.sft.reweighting.base.Method", FIX)
    if "weigh" in getattr(made, "__dict__", {}):
        raise StageError(f"{path}: {settings.class_name} sets `weigh` on the object; define it in the class", FIX)
    try:
        checked = type(settings.class_name, (_Checked, type(made)), {"path": path})
        object.__setattr__(made, "__class__", checked)  # also of a frozen dataclass; what is its own stays
    except TypeError as error:  # __init_subclass__ with arguments, __slots__ of another layout
        raise StageError(f"{path}: no class can derive from {settings.class_name}: {error}", FIX) from error
    return made


class _Checked(Method):
    """Put before a user's class: its `weigh` as it must be."""

    path: ClassVar[Path]

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor | None:
        try:
            weights = super().weigh(losses.clone(), mask.clone(), prepared)  # that it may change
        except PASSED_ON:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises, said in one line
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self.path)]
            line = f":{frames[-1].lineno}" if frames else ""
            raise StageError(f"{self.path}{line}: weigh raised {type(error).__name__}: {error}", FIX) from error
        return None if weights is None else self._held(weights, losses, mask)

    def _held(self, weights: object, losses: Tensor, mask: Tensor) -> Tensor:
        """The weights as numbers of the losses' type, 0 where they are none and no loss is."""
        shape = list(losses.shape)
        if not isinstance(weights, Tensor):
            problem = f"{type(weights).__name__}, not a tensor of the losses' shape {shape}, or None"
        elif list(weights.shape) != shape:
            problem = f"a tensor of shape {list(weights.shape)}, not of the losses' shape {shape}"
        elif weights.is_complex():
            problem = f"{weights.dtype}, not real numbers"
        else:
            held = weights.detach().to(losses)
            number = held.isfinite()
            of_it = mask & ~number & losses.isfinite()  # of a loss that is none, no weight can be one
            if not of_it.any():
                return torch.where(number | mask, held, 0.0)
            row, position = of_it.nonzero()[0].tolist()
            problem = (
                f"{held[row, position].item():g} for {int(of_it.sum())} of {int(mask.sum())} supervised tokens; the "
                f"first has the loss {losses[row, position].item():g}"
            )
        raise StageError(f"{self.path}: weigh returned {problem}", FIX)
