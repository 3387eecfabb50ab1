"""Measures token utilities s_t = <g, grad l_t> along a direction g: by differences of the losses, or exactly.

It is the size of the differences in nats that must exceed rounding; so by default a servo steers the step to it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Batch, Direction, Evaluator, Prepared, Window, supervised
from stages.sft.reweighting.direction import norm
from stages.sft.reweighting.sums import Sums

FIRST_RADIUS = 1e-2
"""Euclidean length of the first trial step, before any loss change has been measured."""
CALIBRATION_TRIALS = 8
LARGEST_CALIBRATION_FACTOR = 10.0
LARGEST_SERVO_FACTOR = 4.0
LARGEST_BEND = 1.0
"""Largest RMS of the losses' even change (curvature) relative to the odd one (slope), for central differences. Beyond
it a longer step changes the losses less, not more, and a servo on the change alone would run away."""
LARGEST_ROUNDING_BEND = 2 * math.sqrt(3)
"""Up to this, the even change may be rounding of the three losses a, b and c: (a + b) / 2 - c is then sqrt(3) times
(a - b) / 2 in RMS, whatever the step. Twice that leaves room for what two RMS of few tokens scatter."""
CURVATURE_MEMORY = 0.9
"""What is left of a curvature after each window that shows none, so that the step may grow by a ninth."""
LARGEST_RELATIVE_RADIUS = 0.1
"""Largest step relative to the norm of the trained parameters; reached only where the losses hardly respond at all."""
DROPOUT_STREAM = 2
"""Separates the seeds of dropout masks from other uses of the step."""


class Derivatives:
    """Exact utilities, by forward-mode differentiation. `Differences` measures with the same methods."""

    def prepare(self, window: Window, model: Evaluator, direction: Direction, size: float) -> list[Prepared]:
        """Evaluate what `utility` needs, for each micro-batch; `size` is the direction's norm."""
        return [{"utility": model.utilities(batch, direction)} for batch in window.batches]

    def utility(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        """Utilities of one micro-batch, [rows, positions - 1]; `losses` are those of the training forward."""
        return prepared["utility"].to(losses.device)

    def finish(self, model: Evaluator) -> dict[str, float]:
        """Numbers about the window's measurement, once all its utilities are known."""
        return {}

    def measure(self, batch: Batch, model: Evaluator, direction: Direction) -> Tensor:
        """Utilities of a batch along a direction, from evaluations of its own, without a change of state."""
        return model.utilities(batch, direction)

    def state(self) -> dict[str, float | None]:
        """What later windows depend on."""
        return {}

    def restore(self, state: dict[str, float | None]) -> None:
        """Take back what `state` gave."""


@dataclasses.dataclass
class LossChange:
    """Sums over tokens of the squared odd and even loss changes along the step, without those that are not finite."""

    squared: float = 0.0
    measured: float = 0.0
    odd_squared: float = 0.0
    even_squared: float = 0.0

    @property
    def rms(self) -> float:
        return math.sqrt(self.squared / self.measured) if self.measured else 0.0

    @property
    def even_rms(self) -> float:
        return math.sqrt(self.even_squared / self.measured) if self.measured else 0.0

    @property
    def bend(self) -> float:
        return math.sqrt(self.even_squared / self.odd_squared) if self.odd_squared else 0.0


class Differences:
    """Utilities from losses at parameters moved along the direction, with a step that a servo steers."""

    def __init__(self, settings: VcoreSettings) -> None:
        self.settings = settings
        self.central = settings.utility == "central_difference"
        self.radius: float | None = None
        """Length of the step along the direction, |eps g|, as the servo last left it; None before any measurement."""
        self.rounding: float | None = None
        """The smallest even change seen, RMS in nats: an upper bound of what rounding makes of it."""
        self.curvature = 0.0
        """RMS of the even change for each squared unit of radius, as last seen."""
        self.step = 0.0
        self._change = Sums(4)

    def prepare(self, window: Window, model: Evaluator, direction: Direction, size: float) -> list[Prepared]:
        self._change = Sums(4)
        self.step = self.settings.epsilon or self._servo_step(window, model, direction, size)
        return self._evaluate(window.batches, model, direction, self.step, window.step)

    def _servo_step(self, window: Window, model: Evaluator, direction: Direction, size: float) -> float:
        """Step size from the servo; the very first one from a few trial evaluations of the whole window."""
        if self.radius is None:
            self.radius = FIRST_RADIUS
            base = [model.losses(batch) for batch in window.batches]
            for _ in range(CALIBRATION_TRIALS):
                seen = Sums(4)
                trials = self._evaluate(window.batches, model, direction, self.radius / size, window.step)
                for batch, losses, trial in zip(window.batches, base, trials, strict=True):
                    seen.add(*_squares(*self._changes(losses, supervised(batch), trial)))
                factor = self._servo_factor(LossChange(*seen.over_ranks(model)), largest=LARGEST_CALIBRATION_FACTOR)
                self.radius *= factor
                if 0.8 < factor < 1.25:
                    break
        self.radius = min(self.radius, LARGEST_RELATIVE_RADIUS * model.parameter_norm())
        return self.radius / size

    def _evaluate(
        self, batches: Sequence[Batch], model: Evaluator, direction: Direction, step: float, seed: int
    ) -> list[Prepared]:
        """The losses at the step's ends; one-sided without dropout the far one alone: training yields the near one."""
        if self.settings.utility_dropout == "independent":  # the near end is the training forward, with its own masks
            with model.perturbed(direction, -step):
                return [{"minus": model.losses(batch, _mask_seed(seed, index))} for index, batch in enumerate(batches)]
        with model.perturbed(direction, -step):
            minus = [model.losses(batch) for batch in batches]
        if self.central:
            with model.perturbed(direction, step):
                plus = [model.losses(batch) for batch in batches]
            ends = zip(plus, minus, strict=True)
            prepared = [{"change": (after - before) / 2, "middle": (after + before) / 2} for after, before in ends]
            if model.has_dropout():  # training losses are no middle to compare with: one batch of clean ones must do
                chosen = len(batches) // 2  # of middle length
                prepared[chosen]["base"] = model.losses(batches[chosen])
                for other in [*prepared[:chosen], *prepared[chosen + 1 :]]:
                    del other["middle"]
            return prepared
        if model.has_dropout():
            return [{"change": model.losses(batch) - far} for batch, far in zip(batches, minus, strict=True)]
        return [{"minus": far} for far in minus]

    def _changes(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor, Tensor | None]:
        prepared = {name: value.to(losses.device) for name, value in prepared.items()}
        change = prepared["change"] if "change" in prepared else losses - prepared["minus"]
        even = prepared["middle"] - prepared.get("base", losses) if "middle" in prepared else None
        return change, mask.to(losses.device), even

    def utility(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        change, mask, even = self._changes(losses, mask, prepared)
        self._change.add(*_squares(change, mask, even))
        return change / self.step

    def finish(self, model: Evaluator) -> dict[str, float]:
        change = LossChange(*self._change.over_ranks(model))
        if self.settings.target_rms is not None and self.radius is not None:
            self.radius *= self._servo_factor(change, largest=LARGEST_SERVO_FACTOR)
        return {"loss_change_rms": change.rms, "loss_change_bend": change.bend, "step_size": self.step}

    def _servo_factor(self, change: LossChange, largest: float) -> float:
        """Factor on the step towards a change of `target_rms` without bending; the smallest if nothing was measured."""
        if self.settings.target_rms is None:
            return 1.0
        if change.measured == 0:
            return 1.0 / largest
        factor = self.settings.target_rms / change.rms if change.rms else largest
        if longest := self._longest_unbent(change):
            assert self.radius is not None  # what bends was measured over some step
            factor = min(factor, longest / self.radius)
        return min(largest, max(1.0 / largest, factor))

    def _longest_unbent(self, change: LossChange) -> float | None:
        """The radius at which the losses bend by `LARGEST_BEND`, or None where they are not known to bend.

        Slope times radius and curvature times its square are the odd and the even change, but for rounding. Were that
        taken for curvature, it would shorten the step, of which then still less stands out, until the utilities are
        nothing but rounding. So what may be rounding counts for nothing, and curvature seen before fades slowly.
        """
        if change.bend == 0 or self.radius is None:
            return None
        even = change.even_rms
        if change.bend <= LARGEST_ROUNDING_BEND:
            self.rounding = even if self.rounding is None else min(even, self.rounding)
            even = math.sqrt(even**2 - self.rounding**2)
        self.curvature = max(even / self.radius**2, CURVATURE_MEMORY * self.curvature)
        return LARGEST_BEND * change.rms / self.radius / self.curvature if self.curvature else None

    def _present_step(self, direction: Direction) -> float:
        return self.settings.epsilon or (self.radius or FIRST_RADIUS) / norm(direction)

    def measure(self, batch: Batch, model: Evaluator, direction: Direction) -> Tensor:
        step = self._present_step(direction)
        [prepared] = self._evaluate([batch], model, direction, step, 0)
        change, _, _ = self._changes(model.losses(batch), supervised(batch), prepared)
        return change / step

    def both_sides(self, batch: Batch, model: Evaluator, direction: Direction) -> tuple[Tensor, Tensor]:
        """l(theta) - l(theta - eps g) and l(theta + eps g) - l(theta): equal but for curvature and rounding."""
        step = self._present_step(direction)
        here = model.losses(batch)
        with model.perturbed(direction, -step):
            before = here - model.losses(batch)
        with model.perturbed(direction, step):
            return before, model.losses(batch) - here

    def state(self) -> dict[str, float | None]:
        return {"radius": self.radius, "rounding": self.rounding, "curvature": self.curvature}

    def restore(self, state: dict[str, float | None]) -> None:
        self.radius, self.rounding, self.curvature = state["radius"], state["rounding"], state["curvature"] or 0.0


Measurement = Derivatives | Differences


def _mask_seed(step: int, index: int) -> int:
    return (DROPOUT_STREAM << 48) + (step << 16) + index


def _squares(change: Tensor, mask: Tensor, even: Tensor | None) -> list[Tensor]:
    """The sums of a `LossChange` over one micro-batch: of the change that is divided by the step, and of the even one
    where both sides are known."""
    zero = torch.zeros((), dtype=torch.float64, device=change.device)
    usable = mask & change.isfinite()
    squared = change.double().where(usable, zero).square().sum()
    if even is None:
        return [squared, usable.sum(), zero, zero]
    return [squared, usable.sum(), squared, even.double().where(mask & even.isfinite(), zero).square().sum()]
