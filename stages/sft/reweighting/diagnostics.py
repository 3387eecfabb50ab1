"""Whether measured utilities mean anything, and how concentrated weights are."""

import math

import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.method_settings import VcoreSettings
from stages.sft.reweighting.base import Direction, Evaluator, Window, supervised
from stages.sft.reweighting.direction import norm
from stages.sft.reweighting.sums import Sums
from stages.sft.reweighting.utility import Differences, Measurement

CHECKED_ROWS = 8
POOR_AGREEMENT = 0.5
"""Rank correlation of the two one-sided changes below which a warning is due: measured on models with known utilities,
it peaks together with the true accuracy and stays above this wherever utilities are usable."""
NO_AGREEMENT = 0.1
TOP_SHARE = 0.01


def check_measurement(
    settings: VcoreSettings, measurement: Measurement, window: Window, model: Evaluator, given: list[Direction]
) -> tuple[dict[str, float], list[str]]:
    """Compare the utilities of a few rows with themselves: against rounding, and between two halves of a probe batch.

    Args:
        given: the step's direction, as the only item of a list, which is empty afterwards: a direction is as large as
            what is trained, and only one is there at a time.

    Returns:
        Metrics `rounding_agreement` (rank correlation of the loss changes on the two sides; differences only) and
        `probe_agreement` (of the utilities along two half probes; what a fresh probe's noise leaves), and warnings.

    Raises:
        StageError: in the first step the changes over a fixed epsilon are rounding, and the settings say to stop then.
    """
    middle = window.batches[len(window.batches) // 2]  # they are in the order of their lengths
    batch = {name: value[:CHECKED_ROWS] if isinstance(value, Tensor) else value for name, value in middle.items()}
    mask = supervised(batch)
    metrics: dict[str, float] = {}
    notes: list[str] = []
    direction = given.pop()
    if isinstance(measurement, Differences):
        agreement = _mean_over_ranks(rank_agreement(*measurement.both_sides(batch, model, direction), mask), model)
        metrics["rounding_agreement"] = agreement
        fixed_step = settings.epsilon is not None
        if fixed_step and agreement < NO_AGREEMENT and window.step == 0 and settings.unmeasurable == "stop":
            raise StageError(
                "the utilities are rounding: the loss changes on the two sides of the step have rank correlation "
                f"{agreement:.2f}",
                "Leave out sft.method.epsilon, use utility central_difference or jvp, or set unmeasurable: warn.",
            )
        if agreement < POOR_AGREEMENT:
            cause = f"epsilon {settings.epsilon}" if fixed_step else f"target_rms {settings.target_rms}"
            notes.append(
                f"weights may be noise: at {cause} the loss changes on the two sides of the step agree only to rank "
                f"correlation {agreement:.2f} (step {window.step + 1})"
            )
    along_halves = []
    for part in ((0, 2), (1, 2)):
        del direction
        direction = model.probe_gradient(2 * settings.probe_fraction, window.step, part=part)
        if norm(direction) != 0.0:
            along_halves.append(measurement.measure(batch, model, direction))
    if len(along_halves) == 2:
        one, other = along_halves
        metrics["probe_agreement"] = _mean_over_ranks(rank_agreement(one, other, mask), model)
    return metrics, notes


def rank_agreement(first: Tensor, second: Tensor, mask: Tensor) -> list[float]:
    """Spearman correlation over each row's supervised tokens, if at least three. All are [rows, positions]."""
    correlations = []
    for one, other, row in zip(first.double().cpu(), second.double().cpu(), mask.cpu(), strict=True):
        usable = row & one.isfinite() & other.isfinite()
        if usable.sum() >= 3:
            ranks = torch.stack([_ranks(one[usable]), _ranks(other[usable])])
            value = torch.corrcoef(ranks)[0, 1].item()
            correlations.append(value if math.isfinite(value) else 0.0)  # no spread at all: nothing agrees
    return correlations


def _ranks(values: Tensor) -> Tensor:
    """Ranks with ties at their mean."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def _mean_over_ranks(values: list[float], model: Evaluator) -> float:
    total, count = model.sum_over_ranks([sum(values), float(len(values))])
    return total / count if count else 0.0


class Concentration:
    """How far the weights of one optimizer step are from uniform, whatever the method."""

    def __init__(self) -> None:
        self._sums = Sums(4)

    def add(self, factors: Tensor, mask: Tensor) -> None:
        """Add one micro-batch; both [rows, positions - 1]."""
        weights = factors.double() * mask
        total = weights.sum(-1, keepdim=True)
        rows = total.squeeze(-1) > 0
        q = torch.where(total > 0, weights / total.where(total > 0, torch.ones_like(total)), 0.0)
        counts = mask.sum(-1).clamp(min=1)
        kl = (torch.special.xlogy(q, q).sum(-1) + counts.double().log()).clamp(min=0)
        ess = 1.0 / (q.square().sum(-1) * counts)
        ordered = q.sort(-1, descending=True).values
        top = (TOP_SHARE * counts).ceil().clamp(min=1)
        within = torch.arange(q.shape[-1], device=q.device) < top.unsqueeze(-1)
        of_rows = (kl, ess, (ordered * within).sum(-1))
        self._sums.add(rows.sum(), *(torch.where(rows, values, 0.0).sum() for values in of_rows))

    def metrics(self, model: Evaluator) -> dict[str, float]:
        """Means over trajectories: `kl` from uniform in nats, `ess` the effective share of tokens, `top_share` the
        share of weight on the heaviest 1 % of tokens (at least one)."""
        rows, *sums = self._sums.over_ranks(model)
        return (
            {name: value / rows for name, value in zip(("kl", "ess", "top_share"), sums, strict=True)} if rows else {}
        )
