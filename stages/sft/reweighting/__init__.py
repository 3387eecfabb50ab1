"""Token weighting methods. A new one needs a file, settings and a case below; for your own see docs/methods.md."""

from collections.abc import Mapping
from typing import Any

from stages.sft import method_settings, objective_settings
from stages.sft.reweighting.base import Method
from stages.sft.reweighting.baselines import Dft, IwSft, Noise, RandomTokens
from stages.sft.reweighting.custom import load_method
from stages.sft.reweighting.objectives import Asft, Deft, Eaft, PriFt, ProFit, TrimSft, Wit
from stages.sft.reweighting.vcore import Vcore
from stages.training.custom_code import NO_DIGESTS


def make_method(
    settings: method_settings.MethodSettings, tokenizer: Any, seed: int, code_digests: Mapping[str, str] = NO_DIGESTS
) -> Method:
    """The method that the settings describe, in its initial state.

    Args:
        code_digests: file -> the sha256 that it has to have; see `load_custom`.
    """
    match settings:
        case method_settings.UniformSettings():
            return Method()
        case method_settings.DftSettings():
            return Dft()
        case method_settings.IwSftSettings():
            return IwSft(settings)
        case objective_settings.EaftSettings():
            return Eaft(settings)
        case objective_settings.ProFitSettings():
            return ProFit(settings)
        case objective_settings.DeftSettings():
            return Deft()
        case objective_settings.TrimSftSettings():
            return TrimSft(settings)
        case objective_settings.PriFtSettings():
            return PriFt(settings)
        case objective_settings.AsftSettings():
            return Asft(settings)
        case objective_settings.WitSettings():
            return Wit(settings)
        case method_settings.RandomSettings():
            return RandomTokens(settings, tokenizer, seed)
        case method_settings.NoiseSettings():
            return Noise(settings, seed)
        case method_settings.VcoreSettings():
            return Vcore(settings)
        case method_settings.CustomSettings():
            return load_method(settings, code_digests)
