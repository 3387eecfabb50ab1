"""Settings of the token weighting methods. What a paper and its code do differently, or leave open, is a field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.harness.settings import StageSettings, execution, identity
from stages.sft.objective_settings import (
    AsftSettings,
    DeftSettings,
    EaftSettings,
    PriFtSettings,
    ProFitSettings,
    TrimSftSettings,
    WitSettings,
)


def instead(values: Any, given: str, default: str) -> Any:
    """Where `given` is set and `default` is not mentioned, let `given` replace it."""
    if isinstance(values, dict) and values.get(given) is not None and default not in values:
        return {**values, default: None}
    return values


def require_one(settings: StageSettings, *names: str) -> None:
    """Raise ValueError unless exactly one of the fields is not None."""
    if sum(getattr(settings, name) is not None for name in names) != 1:
        listed = " and ".join([", ".join(names[:-1]), names[-1]])
        raise ValueError(f"set exactly one of {listed} (the others to null)")


class UniformSettings(StageSettings):
    """Plain SFT: every supervised token has the same weight."""

    name: Literal["uniform"] = identity("uniform")


class DftSettings(StageSettings):
    """Dynamic fine-tuning (Wu et al. 2025, arXiv 2508.05629): a token's loss times its probability under the model."""

    name: Literal["dft"] = identity("dft")


class IwSftSettings(StageSettings):
    """Importance-weighted SFT (Qin & Springenberg 2025, arXiv 2507.12856), relative to the initial model.

    Every token of a trajectory has the weight exp(temperature * mean log-ratio to it), as in its authors' code.
    """

    name: Literal["iw_sft"] = identity("iw_sft")
    temperature: float = identity(1.0, gt=0)
    """Multiplies the mean log-ratio."""
    max_weight: float = identity(16.0, gt=1)
    """The largest weight of a trajectory."""


class RandomSettings(StageSettings):
    """The Random baseline of the VCORE paper: a random share of the tokens and the boxed answer keep their loss."""

    name: Literal["random"] = identity("random")
    kept: float = identity(0.2, gt=0, le=1)
    """Probability that a token outside the answer keeps its loss; drawn afresh each time that the row is trained on."""
    keep_boxed: bool = identity(True)
    """Whether the tokens inside \\boxed{...} always keep theirs."""


class NoiseSettings(StageSettings):
    """Control for VCORE: Gibbs weights of noise, exactly as far from uniform. Shows what sharp weights alone do."""

    name: Literal["noise"] = identity("noise")
    kl: float = identity(0.05, gt=0)
    """KL(weights || uniform) of each trajectory, in nats."""


_BOTH_PRESETS: dict[str, Any] = {
    "utility": "finite_difference",
    "epsilon": 1e-4,
    "direction": "fresh",
    "probe_fraction": 1.0,
    "temperature": 5e3,
    "unmeasurable": "warn",
}
"""Step and temperature are Table 5's for Qwen3-4B on maths (epsilon 1e-4, tau * epsilon 0.5)."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        **_BOTH_PRESETS,
        "probe_clip": None,
        "variance_control": "trajectories",
        "max_alpha": None,
        "normalisation": "trajectories",
    },
    # A clipped probe gradient, dropout drawn anew between the two losses, the loss ratio of each micro-batch (of one
    # row), and a trajectory's weights multiplied by its length.
    "official": {
        **_BOTH_PRESETS,
        "utility_dropout": "independent",
        "probe_clip": 1.0,
        "variance_control": "loss_ratio_per_trajectory",
        "max_alpha": 1.0,
        "normalisation": "tokens",
    },
}
"""The paper's formulas as printed, and what its released code computes."""
BFLOAT16_TARGET_RMS = 0.3
"""Default of `target_rms` where `sft.dtype` is bfloat16, in which only larger loss changes stand out from rounding."""


def with_bfloat16_defaults(method: Any) -> Any:
    """A `vcore` method as it is written, without a preset, with its defaults under bfloat16.

    Those are exact utilities: a small step along a direction is lost where it moves weights by less than half the
    distance between two numbers of bfloat16, and is magnified where they lie halfway. Who sets a step means differences
    of losses, and gets the more exact ones.
    """
    if not isinstance(method, dict) or method.get("name") != "vcore" or method.get("preset"):
        return method
    if method.get("utility_dropout") == "independent":  # of finite differences only
        utility = "finite_difference"
    else:
        utility = "central_difference" if method.get("epsilon") or method.get("target_rms") else "jvp"
    method = {"utility": utility, **method}
    if method["utility"] == "jvp" or method.get("epsilon"):
        return method
    return {"target_rms": BFLOAT16_TARGET_RMS, **method}


VarianceControlName = Literal["none", "trajectories", "tokens", "loss_ratio", "loss_ratio_per_trajectory"]


class VcoreSettings(StageSettings):
    """VCORE (arXiv 2510.27462): more weight on tokens whose loss falls along the gradient of a separate probe batch.

    Defaults depend on what is given. What a config leaves out is filled in by the first of these that has a value:
    1. what `with_bfloat16_defaults` says, under `sft.dtype: bfloat16`;
    2. the values of a `preset` (`PRESETS`), but for another step or sharpness beside one that is given, and what
       belongs to its finite differences beside another `utility`;
    3. None for `kl` beside a temperature, and for `target_rms` beside an epsilon or with jvp;
    4. the defaults below. A run's config.json holds the values as filled in.
    """

    name: Literal["vcore"] = identity("vcore")
    preset: Literal["paper", "official"] | None = execution(None)
    """Values (`PRESETS`) for fields not given: `paper` as printed, `official` as the released code computes (its script
    ships with use_vcore=False)."""

    utility: Literal["finite_difference", "central_difference", "jvp"] = identity("finite_difference")
    """How s_t = <g, grad l_t> is measured: l(theta) - l(theta - eps g) as in the paper, the more exact l(theta + eps g)
    - l(theta - eps g), or `jvp`: forward-mode differentiation, exact and without a step (the default with bfloat16)."""
    target_rms: float | None = identity(0.03, gt=0)
    """Root mean square in nats that the step steers the loss change to (bfloat16: 0.3). None: `epsilon`, or `jvp`."""
    epsilon: float | None = identity(None, gt=0)
    """A fixed step along the (clipped) direction, as in the paper, instead of `target_rms`."""
    utility_dropout: Literal["off", "independent"] = identity("off")
    """Dropout in the losses that are subtracted. `independent` draws new masks for each, as the released code does:
    their noise then exceeds the utilities."""

    direction: Literal["fresh", "ema", "previous", "momentum"] = identity("fresh")
    """`fresh`: the gradient of each step's probe batch, as in the paper. `ema`: an average over the steps' probes, at
    small learning rates the better direction even from tiny probes; at large ones it lags behind and misleads.
    `previous`: the gradient of the step before, of its weighted loss, and `momentum`: Adam's average of such gradients;
    both cost no probe but in the first step (docs/methods.md)."""
    ema_decay: float = identity(0.9, gt=0, lt=1)
    """Of `ema`: the factor by which a probe counts less with each step that passes."""
    probe_fraction: float = identity(0.125, gt=0)
    """Size of the probe batch as a share of `batch_size` (the paper: 1), at least one row."""
    probe_clip: float | None = identity(1.0, gt=0)
    """Norm that the direction is clipped to, or None. It matters only with `epsilon` or a temperature."""
    precondition: bool = identity(False)
    """Whether the direction is divided by Adam's root of the second moments, as the optimizer's step is."""

    kl: float | None = identity(0.05, ge=0)
    """Sharpness as the divergence KL(weights || uniform) in nats that each trajectory may use; 0 is uniform."""
    temperature: float | None = identity(None, gt=0)
    """Sharpness as a fixed temperature: weights = softmax(s / temperature). Tau in the paper's Table 5 and code."""
    inverse_temperature: float | None = identity(None, ge=0)
    """Sharpness as a fixed factor: weights = softmax(inverse_temperature * s). Tau in the paper's formula."""
    max_relative_weight: float | None = identity(None, gt=1)
    """No token weighs more than this times its trajectory's mean weight; what is cut goes to the other tokens. None:
    `kl` alone bounds it, and one token of 10,000 may weigh 129 times the mean within 0.05 nat."""

    variance_control: VarianceControlName = identity("trajectories")
    """Factor alpha on the update. `trajectories`: the paper's sqrt(V_uniform / V_weighted), over a step's trajectories;
    `tokens`: the same over its tokens; `loss_ratio`: L_uniform / L_weighted of the whole step;
    `loss_ratio_per_trajectory`: of each trajectory, as the paper's code does with one row to a micro-batch."""
    max_alpha: float | None = identity(1.0, gt=0)
    """The largest factor, or None. Estimates from few trajectories scatter widely and are biased upwards; a bound of 1
    cuts only the large ones, so that chance alone shrinks the update: by 13 % on average over eight trajectories."""
    normalisation: Literal["tokens", "trajectories"] = identity("tokens")
    """`tokens`: a trajectory counts by its length, as in the paper's code. `trajectories`: all alike, as in its
    text."""

    max_neutral_share: float = identity(0.1, ge=0, le=1)
    """Tokens whose utility is not finite count as neutral; a run stops where they exceed this share of a step."""
    unmeasurable: Literal["stop", "warn"] = identity("stop")
    """What to do if the first step's loss changes over a fixed `epsilon` are rounding. A steered step only warns."""
    diagnostics_steps: int = execution(50, gt=0)
    """Optimizer steps between two checks of the utilities against rounding and against a second probe."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """The rules of the class docstring, but for bfloat16, of which only `SftSettings` knows."""
        if not isinstance(values, dict):
            return values
        if isinstance(preset := values.get("preset"), str) and preset in PRESETS:
            filled = PRESETS[preset]
            if values.get("utility", filled["utility"]) != filled["utility"]:
                filled = {name: value for name, value in filled.items() if name != "utility_dropout"}
                if values["utility"] == "jvp":
                    filled = {name: value for name, value in filled.items() if name not in ("epsilon", "target_rms")}
            for group in (("kl", "temperature", "inverse_temperature"), ("epsilon", "target_rms")):
                if any(values.get(name) is not None for name in group):
                    filled = {name: value for name, value in filled.items() if name not in group}
            values = {**filled, **values}
        for given in ("temperature", "inverse_temperature"):
            values = instead(values, given, "kl")
        if values.get("utility") == "jvp" and "target_rms" not in values:
            values = {**values, "target_rms": None}
        return instead(values, "epsilon", "target_rms")

    @model_validator(mode="after")
    def _consistent(self) -> VcoreSettings:
        require_one(self, "kl", "temperature", "inverse_temperature")
        if self.utility != "jvp":
            require_one(self, "target_rms", "epsilon")
        elif self.epsilon is not None or self.target_rms is not None:
            raise ValueError("utility jvp takes no step: leave out epsilon and target_rms")
        if self.utility_dropout == "independent" and self.utility != "finite_difference":
            raise ValueError(
                "utility_dropout independent is how the released code differs; it exists for finite_difference only"
            )
        if self.direction != "ema" and self.ema_decay != type(self).model_fields["ema_decay"].default:
            raise ValueError(f"ema_decay: is for direction: ema, and the direction is {self.direction}")
        return self


class CustomSettings(StageSettings):
    """Your own method: a file with a class derived from `stages.sft.reweighting.base.Method`. See docs/methods.md."""

    name: Literal["custom"] = identity("custom")
    file: str = execution()
    """The file; its content enters the stage's key, its path does not."""
    class_name: str = identity("Weights")
    options: dict[str, Any] = identity({})
    """Keyword arguments of the class."""


MethodSettings = Annotated[
    UniformSettings
    | DftSettings
    | IwSftSettings
    | EaftSettings
    | ProFitSettings
    | DeftSettings
    | TrimSftSettings
    | PriFtSettings
    | AsftSettings
    | WitSettings
    | RandomSettings
    | NoiseSettings
    | VcoreSettings
    | CustomSettings,
    Field(discriminator="name"),
]
