"""VCORE: variance-controlled optimisation-based reweighting of tokens (arXiv 2510.27462).

The utility of token t is s_t = <g, grad l_t>, where g is the gradient of the uniform loss on an independent probe batch: how much
a small step along -g lowers the token's loss. It is measured by differences of the loss along g. What the differences must keep
apart from rounding is their size in nats, not the step, so by default the step is steered to keep that size constant.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from stages.sft.reweighting.base import Batch, Evaluator, Method, Outcome, Window
from stages.sft.reweighting.gibbs import TokenWeights, weights_at_temperature, weights_within_kl
from stages.sft.settings import VcoreSettings

FIRST_RADIUS = 1e-2
"""Euclidean length of the first trial step, before any loss change has been measured."""
CALIBRATION_TRIALS = 8
LARGEST_CALIBRATION_FACTOR = 10.0
LARGEST_SERVO_FACTOR = 4.0
LARGEST_BEND = 1.0
"""Largest RMS of the losses' even change (curvature) relative to the odd one (slope), for central differences. Beyond it a longer step
changes the losses less, not more, and a servo on the change alone would run away."""
LARGEST_RELATIVE_RADIUS = 0.1
"""Largest step relative to the norm of the trained parameters; reached only where the losses hardly respond at all."""


@dataclasses.dataclass
class _Change:
    """Sums over tokens of the squared odd and even loss changes along the step; tokens with a change that is not finite are left out."""

    squared: float = 0.0
    measured: int = 0
    odd_squared: float = 0.0
    even_squared: float = 0.0

    def add(self, prepared: dict[str, torch.Tensor], change: torch.Tensor, losses: torch.Tensor, mask: torch.Tensor) -> None:
        """Add one micro-batch; `losses` are those at the current parameters, the even change is known for central differences only."""
        squared, measured = _squares(change, mask)
        self.squared += squared
        self.measured += measured
        if "middle" in prepared:
            self.odd_squared += squared
            self.even_squared += _squares(prepared["middle"] - losses, mask)[0]

    @property
    def rms(self) -> float:
        return math.sqrt(self.squared / self.measured) if self.measured else 0.0

    @property
    def bend(self) -> float:
        return math.sqrt(self.even_squared / self.odd_squared) if self.odd_squared else 0.0


@dataclasses.dataclass
class _Sums:
    """What the micro-batches of one window add up to."""

    tokens: float = 0.0
    uniform_loss: float = 0.0
    weighted_loss: float = 0.0
    change: _Change = dataclasses.field(default_factory=lambda: _Change())
    neutral: int = 0
    kl: list[float] = dataclasses.field(default_factory=list)
    ess: list[float] = dataclasses.field(default_factory=list)
    uniform_utility: list[float] = dataclasses.field(default_factory=list)
    weighted_utility: list[float] = dataclasses.field(default_factory=list)


class Vcore(Method):
    """Weights from probe utilities, within a KL budget (or at a temperature), with the paper's variance control."""

    def __init__(self, settings: VcoreSettings) -> None:
        self.settings = settings
        self.radius: float | None = None
        """Length of the step along the probe gradient, |eps g|, as the servo last left it; None before the first measurement."""
        self._step = 0.0
        self._gradient_norm = 0.0
        self._tokens_per_trajectory = 0.0
        self._sums = _Sums()

    def prepare(self, window: Window, model: Evaluator) -> list[dict[str, torch.Tensor]]:
        self._sums = _Sums()
        self._tokens_per_trajectory = window.tokens / max(window.trajectories, 1)
        gradient = model.probe_gradient(self.settings.probe_fraction, window.step)
        norm = _norm(gradient)
        self._gradient_norm = norm
        if norm == 0.0 or not math.isfinite(norm):  # no direction: all utilities unknown, so every token stays neutral
            self._step = 0.0
            return [{"change": torch.full(batch["labels"][:, 1:].shape, math.nan)} for batch in window.batches]
        clip = self.settings.probe_clip
        factor = 1.0 if clip is None else min(1.0, clip / norm)
        direction = [part * factor for part in gradient]
        self._step = self.settings.epsilon or self._servo_step(window, model, direction, norm * factor)
        return self._evaluate(window.batches, model, direction, self._step)

    def _servo_step(self, window: Window, model: Evaluator, direction: Sequence[torch.Tensor], norm: float) -> float:
        """Step size from the servo; the very first one from a few trial evaluations of the whole window."""
        if self.radius is None:
            self.radius = FIRST_RADIUS
            base = [model.losses(batch) for batch in window.batches]
            for _ in range(CALIBRATION_TRIALS):
                seen = _Change()
                trials = self._evaluate(window.batches, model, direction, self.radius / norm)
                for batch, losses, trial in zip(window.batches, base, trials, strict=True):
                    change = trial["change"] if "change" in trial else losses - trial["minus"]
                    seen.add(trial, change, losses, batch["labels"][:, 1:] != -100)
                factor = self._servo_factor(seen, largest=LARGEST_CALIBRATION_FACTOR)
                self.radius *= factor
                if 0.8 < factor < 1.25:
                    break
        self.radius = min(self.radius, LARGEST_RELATIVE_RADIUS * model.parameter_norm())
        return self.radius / norm

    def _evaluate(
        self, batches: Sequence[Batch], model: Evaluator, direction: Sequence[torch.Tensor], step: float
    ) -> list[dict[str, torch.Tensor]]:
        """The change of each token's loss over `step`; one-sided without dropout only the far end, as training yields the near one."""
        with model.perturbed(direction, -step):
            minus = [model.losses(batch) for batch in batches]
        if self.settings.differences == "central":
            with model.perturbed(direction, step):
                plus = [model.losses(batch) for batch in batches]
            prepared = [{"change": (after - before) / 2, "middle": (after + before) / 2} for after, before in zip(plus, minus, strict=True)]
            if model.has_dropout():  # then the training losses are no middle to compare with: one batch of clean ones must do
                prepared[0]["base"] = model.losses(batches[0])
                for later in prepared[1:]:
                    del later["middle"]
            return prepared
        if model.has_dropout():
            return [{"change": model.losses(batch) - far} for batch, far in zip(batches, minus, strict=True)]
        return [{"minus": far} for far in minus]

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        change = prepared["change"].to(losses.device) if "change" in prepared else losses - prepared["minus"]
        utility = change / self._step if self._step else torch.full_like(losses, math.nan)
        weights = self._distribution(utility, mask)
        counts = mask.sum(-1, keepdim=True)
        share = counts.double() if self.settings.normalisation == "tokens" else (counts > 0) * self._tokens_per_trajectory
        factors = (weights.q * share).to(torch.float32)
        self._add(losses, mask, utility, weights, factors)
        prepared = {name: value.to(losses.device) for name, value in prepared.items()}
        self._sums.change.add(prepared, change, prepared.get("base", losses), mask)
        return factors

    def _distribution(self, utility: torch.Tensor, mask: torch.Tensor) -> TokenWeights:
        if self.settings.kl is not None:
            return weights_within_kl(utility, mask, self.settings.kl)
        assert self.settings.temperature is not None  # the settings hold exactly one of the two
        return weights_at_temperature(utility, mask, self.settings.temperature)

    def _add(
        self,
        losses: torch.Tensor,
        mask: torch.Tensor,
        utility: torch.Tensor,
        weights: TokenWeights,
        factors: torch.Tensor,
    ) -> None:
        sums = self._sums
        rows = mask.any(-1)
        sums.tokens += mask.sum().item()
        sums.uniform_loss += losses.double().sum().item()
        sums.weighted_loss += (losses.double() * factors.double()).sum().item()
        sums.neutral += weights.neutral
        sums.kl += weights.kl[rows].tolist()
        sums.ess += weights.ess[rows].tolist()
        usable = utility.double().where(mask & utility.isfinite(), torch.zeros_like(utility, dtype=torch.float64))
        sums.uniform_utility += (usable.sum(-1) / mask.sum(-1).clamp(min=1))[rows].tolist()
        sums.weighted_utility += (usable * weights.q).sum(-1)[rows].tolist()

    def finish(self) -> Outcome:
        sums, settings = self._sums, self.settings
        scale = 1.0
        if settings.variance_control == "variance":
            scale = variance_ratio(sums.uniform_utility, sums.weighted_utility)
        elif settings.variance_control == "loss_ratio" and sums.weighted_loss > 0:
            scale = min(1.0, sums.uniform_loss / sums.weighted_loss)
        metrics = {
            "kl": _mean(sums.kl),
            "ess": _mean(sums.ess),
            "alpha": scale,
            "loss_change_rms": sums.change.rms,
            "loss_change_bend": sums.change.bend,
            "probe_grad_norm": self._gradient_norm,
            "step_size": self._step,
            "neutral_tokens": float(sums.neutral),
        }
        if settings.target_rms is not None and self.radius is not None and self._step:
            self.radius *= self._servo_factor(sums.change, largest=LARGEST_SERVO_FACTOR)
        return Outcome(scale, metrics)

    def _servo_factor(self, change: _Change, largest: float) -> float:
        """Factor on the step that brings the loss change to `target_rms` without bending; the smallest if nothing finite was measured."""
        if self.settings.target_rms is None:
            return 1.0
        if change.measured == 0:
            return 1.0 / largest
        wanted = self.settings.target_rms / change.rms if change.rms else largest
        if change.bend:
            wanted = min(wanted, LARGEST_BEND / change.bend)
        return min(largest, max(1.0 / largest, wanted))

    def state(self) -> dict[str, Any]:
        return {"radius": self.radius}

    def restore(self, state: dict[str, Any]) -> None:
        self.radius = state["radius"]


def variance_ratio(uniform: Sequence[float], weighted: Sequence[float]) -> float:
    """The paper's alpha = sqrt(Var[mean utility] / Var[weighted utility]) over trajectories, at most 1.

    Args:
        uniform: for each trajectory the mean utility of its tokens.
        weighted: for each trajectory the weighted sum of its utilities.

    Returns:
        1.0 for fewer than two trajectories, where a variance does not exist. The estimate from few trajectories is biased upwards,
        which is why it is never allowed to amplify the update.
    """
    if len(uniform) < 2:
        return 1.0
    spread_uniform, spread_weighted = _variance(uniform), _variance(weighted)
    return 1.0 if spread_weighted <= spread_uniform else math.sqrt(spread_uniform / spread_weighted)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _norm(parts: Sequence[torch.Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(parts).item())


def _squares(change: torch.Tensor, mask: torch.Tensor) -> tuple[float, int]:
    """Sum of squares and number of the supervised, finite entries."""
    usable = mask.to(change.device) & change.isfinite()
    return change.double().where(usable, torch.zeros_like(change, dtype=torch.float64)).square().sum().item(), int(usable.sum())
