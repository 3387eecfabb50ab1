"""Token weighting methods. A new one is a file here, its settings, and a line in `make_method`."""

from __future__ import annotations

from stages.sft.reweighting.base import Method
from stages.sft.reweighting.dft import Dft
from stages.sft.reweighting.uniform import Uniform
from stages.sft.reweighting.vcore import Vcore
from stages.sft.settings import DftSettings, UniformSettings, VcoreSettings


def make_method(settings: UniformSettings | DftSettings | VcoreSettings) -> Method:
    """The method that the settings describe, in its initial state."""
    match settings:
        case UniformSettings():
            return Uniform()
        case DftSettings():
            return Dft()
        case VcoreSettings():
            return Vcore(settings)
