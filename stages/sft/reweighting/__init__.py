"""Token weighting methods. A new one is a file here, its settings, and a line in `make_method`; or a file of your own (docs/methods.md)."""

from __future__ import annotations

from typing import Any

from stages.sft.method_settings import (
    CustomSettings,
    DftSettings,
    IwSftSettings,
    NoiseSettings,
    RandomSettings,
    UniformSettings,
    VcoreSettings,
)
from stages.sft.method_settings import Method as MethodSettings
from stages.sft.reweighting.base import Method
from stages.sft.reweighting.custom import load_method
from stages.sft.reweighting.dft import Dft
from stages.sft.reweighting.iw_sft import IwSft
from stages.sft.reweighting.noise import Noise
from stages.sft.reweighting.random_tokens import RandomTokens
from stages.sft.reweighting.uniform import Uniform
from stages.sft.reweighting.vcore import Vcore


def make_method(settings: MethodSettings, tokenizer: Any, seed: int) -> Method:
    """The method that the settings describe, in its initial state."""
    match settings:
        case UniformSettings():
            return Uniform()
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
