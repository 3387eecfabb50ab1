"""Settings of the objectives whose papers followed DFT's. What a paper and its code do differently is a field."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from stages.harness.settings import StageSettings, execution, identity, identity_where_set


class EaftSettings(StageSettings):
    """Entropy-adaptive fine-tuning (arXiv 2601.02151): a token's loss times the normalised entropy of the model."""

    name: Literal["eaft"] = identity("eaft")
    alpha: float = identity(1.0, gt=0)
    """Power of the normalised entropy."""


class ProFitSettings(StageSettings):
    """ProFit (arXiv 2601.09195): tokens that the model gives a probability below `threshold` have no loss."""

    name: Literal["profit"] = identity("profit")
    threshold: float = identity(gt=0, lt=1)


class DeftSettings(StageSettings):
    """Dynamic entropy fine-tuning (arXiv 2602.11424): weights p^a, a the sum of the model's squared probabilities."""

    name: Literal["deft"] = identity("deft")


class TrimSftSettings(StageSettings):
    """TrimSFT (arXiv 2609.09707): Gaussian weights of the gap between a token's logit and its strongest competitor's.

    The defaults are the paper's (m, tau).
    """

    name: Literal["trim_sft"] = identity("trim_sft")
    centre: float = identity(1.5)
    """Gap with the full weight."""
    width: float = identity(0.8, gt=0)
    """Standard deviation of the Gaussian."""


class PriFtSettings(StageSettings):
    """PriFT (arXiv 2606.09396): a token's loss times a weight that the model that training starts from gives it."""

    name: Literal["prift"] = identity("prift")
    weights: Literal["prob", "mass"] = identity_where_set("prob")
    """`prob`: the token's probability (PriFT-prob). `mass`: 1 where the token and all that are less likely have at
    least `threshold` of the probability together, else 0 (PriFT-mass)."""
    threshold: float = identity_where_set(0.5, gt=0, le=1)
    """Of `mass`; its authors take 0.5."""

    @model_validator(mode="after")
    def _consistent(self) -> PriFtSettings:
        if self.weights != "mass" and self.threshold != type(self).model_fields["threshold"].default:
            raise ValueError("threshold: is for weights: mass")
        return self


ASFT_PRESETS: dict[str, dict[str, Any]] = {
    "paper_v1": {"kl": "reverse", "kl_weight": 0.05},
    "official": {"kl": "forward", "kl_weight": 0.1},
}
"""Of the anchor: Eq. 6 and the weight of the paper's first version, and the defaults of its authors' code."""


class AsftSettings(StageSettings):
    """Anchored SFT (arXiv 2509.23753): DFT's loss, plus a KL divergence to the model that training starts from.

    The defaults are the direction of its authors' code and the weight of the paper's experiments.
    """

    name: Literal["asft"] = identity("asft")
    preset: Literal["paper_v1", "official"] | None = execution(None)
    """Values (`ASFT_PRESETS`) for fields not given."""
    kl: Literal["forward", "reverse"] = identity("forward")
    """Which divergence, over the whole vocabulary: `forward`, KL(start || model), keeps all that the start held likely;
    `reverse`, KL(model || start), keeps the model from what the start held unlikely."""
    kl_weight: float = identity(0.05, gt=0)
    """What the divergence of a token is multiplied by: lambda."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, dict) else None
        return {**ASFT_PRESETS[preset], **values} if isinstance(preset, str) and preset in ASFT_PRESETS else values


class WitSettings(StageSettings):
    """Weighted instruction tuning (arXiv 2507.07817): a weight for the prompt's tokens and one for the answer's.

    The weighted sum of their losses is divided by the number of tokens whose weight is not 0. The defaults are those of
    its authors' script; the paper finds 0 to 0.5 for prompts and 0.5 to 1 for answers best.
    """

    name: Literal["wit"] = identity("wit")
    prompt_weight: float = identity(0.4, ge=0)
    """Where it is above 0, `sft.completion_only_loss` is false."""
    response_weight: float = identity(0.6, gt=0)
