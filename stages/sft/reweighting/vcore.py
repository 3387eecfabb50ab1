"""VCORE: variance-controlled optimisation-based reweighting of tokens (arXiv 2510.27462).

The utility of token t is s_t = <g, grad l_t>, where g is the gradient of the uniform loss on an independent probe
batch: how much a small step along -g lowers the token's loss. Each optimizer step takes a direction (direction.py), the
utilities along it (utility.py), a distribution over each trajectory's tokens that favours large ones (gibbs.py), and a
factor on the whole update that keeps its variance (variance.py).
"""

from typing import Any

import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Direction, Evaluator, Method, Prepared, Window, WindowOutcome, supervised
from stages.sft.reweighting.diagnostics import check_measurement
from stages.sft.reweighting.direction import ProbeDirection
from stages.sft.reweighting.gibbs import TokenWeights, capped, weights_at_temperature, weights_within_kl
from stages.sft.reweighting.sums import Sums
from stages.sft.reweighting.utility import Derivatives, Differences, Measurement
from stages.sft.reweighting.variance import VarianceControl


class Vcore(Method):
    """Weights from probe utilities, within a KL budget (or at a temperature), with the paper's variance control."""

    def __init__(self, settings: VcoreSettings) -> None:
        self.settings = settings
        self.probe = ProbeDirection(settings)
        self.measurement: Measurement = Derivatives() if settings.utility == "jvp" else Differences(settings)
        self.control = VarianceControl(settings.variance_control, settings.max_alpha)
        self._direction: Direction | None = None
        """From `prepare` to `examine`; None then where the probe said nothing, and the rest of the time."""
        self._known = False
        self._window = Window([], 0, 0, 0)
        self._neutral = Sums(1)
        self._checks: dict[str, float] = {}
        self._notes: list[str] = []

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        self._window, self._neutral, self._checks, self._notes = window, Sums(1), {}, []
        self.control.restart()
        self._direction = direction = self.probe.next(window.step, model)
        self._known = direction is not None
        if direction is None:  # nothing is known of any token, so all weigh the same
            return [{} for _ in window.batches]
        return self.measurement.prepare(window, model, direction, self.probe.size)

    def examine(self, window: Window, model: Evaluator) -> None:
        direction, self._direction = self._direction, None  # all is measured, and it is as large as what is trained
        if direction is not None and window.step % self.settings.diagnostics_steps == 0:
            given = [direction]
            del direction
            self._checks, self._notes = check_measurement(self.settings, self.measurement, window, model, given)

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        utility = self.measurement.utility(losses, mask, prepared) if self._known else torch.zeros_like(losses)
        weights = self._distribution(utility, mask)
        factors = self._factors(weights, mask)
        self._neutral.add((mask & ~utility.isfinite()).sum())
        self.control.add(losses, mask, utility, weights.q, factors)
        return self.control.row_factors(losses, factors)

    def _distribution(self, utility: Tensor, mask: Tensor) -> TokenWeights:
        settings = self.settings
        if settings.kl is not None:
            weights = weights_within_kl(utility, mask, settings.kl)
        else:
            beta = settings.inverse_temperature if settings.temperature is None else 1.0 / settings.temperature
            assert beta is not None  # the settings hold exactly one of the three
            weights = weights_at_temperature(utility, mask, beta)
        return weights if settings.max_relative_weight is None else capped(weights, mask, settings.max_relative_weight)

    def _factors(self, weights: TokenWeights, mask: Tensor) -> Tensor:
        """What the losses are multiplied by: a trajectory's share of the window, spread over its tokens by q."""
        counts = mask.sum(-1, keepdim=True)
        if self.settings.normalisation == "tokens":
            share = counts.double()
        else:
            share = (counts > 0) * (self._window.tokens / max(self._window.trajectories, 1))
        return (weights.q * share).to(torch.float32)

    def finish(self, model: Evaluator) -> WindowOutcome:
        measured = self.measurement.finish(model) if self._known else {}
        [neutral] = self._neutral.over_ranks(model)
        tokens, step = self._window.tokens, self._window.step
        if neutral > self.settings.max_neutral_share * tokens:
            raise StageError(
                f"{neutral:.0f} of {tokens} tokens have a utility that is not finite in step {step + 1}",
                "Lower the learning rate, or raise sft.method.max_neutral_share if that is meant to be.",
            )
        self.probe.end_step(model)
        alpha = self.control.alpha(model)
        metrics = {"alpha": alpha, "neutral_tokens": neutral, **measured, **self.probe.metrics, **self._checks}
        return WindowOutcome(alpha, metrics, self._notes)

    def preview(self, window: Window, model: Evaluator) -> Tensor | None:
        [batch] = window.batches
        mask = supervised(batch)
        if self._direction is None:
            return mask.float()
        utility = self.measurement.measure(batch, model, self._direction)
        mask = mask.to(utility.device)
        return (self._distribution(utility, mask).q * mask.sum(-1, keepdim=True)).float()

    def state(self) -> dict[str, Any]:
        return {"measurement": self.measurement.state(), "probes": self.probe.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.measurement.restore(state["measurement"])
        self.probe.steps = state["probes"]

    def tensors(self) -> Direction:
        return self.probe.kept

    def restore_tensors(self, tensors: Direction) -> None:
        self.probe.kept = tensors
