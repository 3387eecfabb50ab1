"""Token weighting methods. A new one needs a file, settings and a case below; for your own see docs/methods.md."""

from __future__ import annotations

from typing import Any

from stages.sft.method_settings import (
    CustomSettings,
    DftSettings,
    IwSftSettings,
    MethodSettings,
    NoiseSettings,
    RandomSettings,
    UniformSettings,
    VcoreSettings,
)
from stages.sft.reweighting.base import Method
from stages.sft.reweighting.baselines import Dft, IwSft, Noise, RandomTokens
from stages.sft.reweighting.custom import load_method
from stages.sft.reweighting.vcore import Vcore


def make_method(settings: MethodSettings, tokenizer: Any, seed: int) -> Method:
    """The method that the settings describe, in its initial state."""
    match settings:
        case UniformSettings():
            return Method()
        case DftSettings():
            return Dft()
        case IwSftSettings():
            return IwSft(settings)
        case RandomSettings():
            return RandomTokens(settings, tokenizer, seed)
        case NoiseSettings():
            return Noise(settings, seed)
        case VcoreSettings():
            return Vcore(settings)
        case CustomSettings():
            return load_method(settings)
