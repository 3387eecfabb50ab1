"""The direction along which VCORE measures utilities: a probe gradient, an average of them, or what training has
anyway, the gradient of the step before or the optimizer's momentum."""

import math

import torch

from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Direction, Evaluator
from stages.training import distributed


class ProbeDirection:
    """Each step's direction, from the gradient of the uniform loss on a probe batch that the step does not train on, or
    from the gradients of the steps before, which trained on other rows.

    Attributes:
        kept: what later steps need of this one, as large as the model: with `ema` the sum of decay^i * gradient of i
            steps ago, whose bias matters only to norms, and is divided out for them; with `previous` the gradient of
            the last step, of its weighted loss. Else nothing.
        steps: probes in that sum.
        size: Euclidean norm of the last direction.
        metrics: of the last direction: the probe's norm and, with averaging, its cosine to the average before it.
    """

    def __init__(self, settings: VcoreSettings) -> None:
        self.settings = settings
        self.kept: Direction = []
        self.steps = 0
        self.size = 0.0
        self.metrics: dict[str, float] = {}

    def next(self, step: int, model: Evaluator) -> Direction | None:
        """The clipped direction, or None where it is zero or not finite."""
        fresh = self._had_anyway(model)
        if fresh is None:  # also in the first step, before which there is none
            fresh = model.probe_gradient(self.settings.probe_fraction, step)
        size = norm(fresh)
        self.metrics = {"probe_grad_norm": size}
        if size == 0.0 or not math.isfinite(size):
            return None
        direction = self._averaged(fresh, size) if self.settings.direction == "ema" else fresh
        if self.settings.precondition:
            direction = model.preconditioned(direction)
        if direction is not fresh:
            size = norm(direction)
        limit = self.settings.probe_clip
        factor = 1.0 if limit is None else min(1.0, limit / size)
        self.size = size * factor
        # The average is kept, and its multiple made for this step; what was made for it is scaled in place.
        return [part.mul_(factor) for part in direction]

    def _had_anyway(self, model: Evaluator) -> Direction | None:
        if self.settings.direction == "momentum":
            return model.momentum()
        if self.settings.direction == "previous" and self.kept:
            kept, self.kept = self.kept, []
            return kept
        return None

    def end_step(self, model: Evaluator) -> None:
        """Keep what the next step needs of this one, whose gradient is complete."""
        if self.settings.direction == "previous":
            self.kept = model.training_gradient()

    def _averaged(self, fresh: Direction, size: float) -> Direction:
        decay = self.settings.ema_decay
        if self.kept:
            products = (torch.sum(one * other) for one, other in zip(self.kept, fresh, strict=True))
            inner = sum(map(distributed.number, products))
            self.metrics["probe_cosine"] = inner / (norm(self.kept) * size)
            for mean, part in zip(self.kept, fresh, strict=True):
                mean.mul_(decay).add_(part, alpha=1 - decay)
        else:
            self.kept = [part * (1 - decay) for part in fresh]
        self.steps += 1
        unbiased = 1 / (1 - decay**self.steps)
        return [part * unbiased for part in self.kept]


def norm(direction: Direction) -> float:
    """Euclidean norm over all parameters."""
    return distributed.number(torch.nn.utils.get_total_norm(direction))
