"""Whether a model computes the same twice, and the same where its rows are laid out otherwise; not every model does."""

import math
from typing import Any

from torch import Tensor, nn

from stages.harness.context import StageError

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""torch's modules that drop activations, whose common base is private; a canary in tests/stages/sft lists them anew."""
LARGEST_DIFFERENCE = 1e-3
"""Nats by which a token's log-probability may differ from that of a row of its own, in float32."""
LARGEST_MEAN, LARGEST_SHARE = 0.05, 0.5
"""Where less precise numbers are computed with: the mean of that difference over the tokens that another row's stand
before, in nats, or as a share of what it is where they see those; the larger one counts."""


def has_dropout(model: Any) -> bool:
    """Whether two training forwards of one input may differ: a module that drops, or a rate in the model's config."""
    if any(isinstance(module, DROPOUTS) and module.p > 0 for module in model.modules()):
        return True
    options = model.config.to_dict().items()
    rates = [value for name, value in options if name.endswith(("dropout", "_pdrop"))]
    return any(rate for rate in rates if isinstance(rate, int | float))


def require_full_attention(model: Any, setting: str) -> None:
    """Raise `StageError` for a model whose attention is not torch's, or does not see all of what is before a token.

    Args:
        setting: what the user has set, such as `grpo.share_prompts`.
    """
    fix = f"Leave {setting} out."
    if (attention := model.config._attn_implementation) != "sdpa":
        raise StageError(f"{setting}: the attention {attention!r} takes no mask of who sees whom; sdpa does", fix)
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    if getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None) is not None:
        kinds = ["sliding_attention"]
    if others := sorted(set(kinds) - {"full_attention"}):
        # What takes a window's place is only seen by `check_same` in rows that are longer than it.
        raise StageError(f"{setting}: this model has layers of {', '.join(others)}, which it would undo", fix)


def check_same(ours: Tensor, alone: Tensor, sees_all: Tensor, mask: Tensor, setting: str, *, exact: bool) -> None:
    """Compare log-probabilities of rows laid out otherwise with those of rows of their own, all [rows, positions].

    Args:
        ours: of the other layout.
        alone: of rows of their own.
        sees_all: of the other layout, where each token sees all before it, other rows' as well: as of a model that does
            not heed who sees whom.
        mask: which count.
        setting: what the user has set, such as `grpo.share_prompts`.
        exact: whether float32 was computed with.

    Raises:
        StageError: they differ by more than rounding. The model has a state that runs through the row, takes no
            positions, or an attention of its own.
    """
    difference, blind = ((other - alone).abs().masked_fill(mask == 0, 0.0) for other in (ours, sees_all))
    heeded = (mask != 0) & (ours != sees_all)
    tokens, largest = heeded.sum().item(), difference.max().item()
    mean, most = (each[heeded].sum().item() / max(1, tokens) for each in (difference, blind))
    differs = largest > LARGEST_DIFFERENCE if exact else mean > max(LARGEST_MEAN, LARGEST_SHARE * most)
    if differs or not tokens or math.isnan(largest):
        raise StageError(
            f"{setting}: this model computes other log-probabilities with it, by up to {largest:.2g} nat",
            f"It does not keep to who sees whom, or to the positions; leave {setting} out.",
        )
