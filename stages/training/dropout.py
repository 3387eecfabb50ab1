"""Whether a model drops activations while it trains."""

from typing import Any

from torch import nn

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""torch's modules that drop activations, whose common base is private; a canary in tests/stages/sft lists them anew."""


def has_dropout(model: Any) -> bool:
    """Whether two training forwards of one input may differ: a module that drops, or a rate in the model's config."""
    if any(isinstance(module, DROPOUTS) and module.p > 0 for module in model.modules()):
        return True
    options = model.config.to_dict().items()
    rates = [value for name, value in options if name.endswith(("dropout", "_pdrop"))]
    return any(rate for rate in rates if isinstance(rate, int | float))
