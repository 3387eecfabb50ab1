"""Token weights as Gibbs distributions: q proportional to exp(utility / temperature), one distribution per trajectory.

It maximises the expected utility under a bound on KL(q || uniform) (VCORE, arXiv 2510.27462); the temperature is the
bound's multiplier. A utility that is not finite counts as its row's mean. Everything is computed in float64.
"""

import dataclasses
import math

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class TokenWeights:
    """Distributions over the tokens of each trajectory.

    Attributes:
        q: weights [rows, positions], float64; a row with a supervised token sums to 1, unsupervised positions are 0.
        kl: KL(q || uniform) of each row, in nats, [rows]; 0 for a row without supervised tokens.
    """

    q: Tensor
    kl: Tensor


def weights_at_temperature(utility: Tensor, mask: Tensor, beta: float) -> TokenWeights:
    """q = softmax(beta * utility) over the supervised tokens of each row, [rows, positions]; beta = 1 / temperature."""
    rows = torch.full((len(mask),), beta, dtype=torch.float64, device=mask.device)
    return _tilt(_shifted(_neutralised(utility, mask), mask), mask, rows)


def weights_within_kl(utility: Tensor, mask: Tensor, kl: float) -> TokenWeights:
    """The Gibbs distribution of each row with KL(q || uniform) = `kl`.

    A row that cannot reach `kl` (m of its n tokens share the largest utility, and KL cannot exceed log(n / m)) gets
    nearly all of what it can. A row of equal utilities, of one token or of none, or `kl` = 0, gives uniform weights.
    The result does not change when a row's utilities are shifted, or multiplied by a positive number.

    Args:
        utility: [rows, positions]; anything where `mask` is false.
        mask: the supervised tokens, bool, the same shape.
        kl: the bound in nats.
    """
    utility = _neutralised(utility, mask)
    count = mask.sum(-1)
    shifted = _shifted(utility, mask)
    mean = shifted.sum(-1, keepdim=True) / count.clamp(min=1).unsqueeze(-1)
    spread = (((shifted - mean).square() * mask).sum(-1) / count.clamp(min=1)).sqrt()
    scale = torch.where(mask, utility.abs(), 0.0).amax(-1)
    live = (count > 1) & (spread > 1e-12 * scale.clamp(min=1e-300)) & (kl > 0)
    scores = shifted / spread.where(live, torch.ones_like(spread)).unsqueeze(-1)
    ties = ((scores > -1e-12) & mask).sum(-1).clamp(min=1)
    reachable = 0.999 * (count.clamp(min=1).double() / ties).log()
    target = reachable.clamp(max=kl)

    low = torch.zeros_like(spread)
    high = torch.full_like(spread, max(1e-6, math.sqrt(2 * kl)))  # KL is about beta^2 / 2 for scores of unit variance
    for _ in range(64):
        short = live & (_tilt(scores, mask, high).kl < target)
        if not short.any():
            break
        low, high = torch.where(short, high, low), torch.where(short, 2 * high, high)
    beta = 0.5 * (low + high)
    for _ in range(60):  # a safeguarded Newton search; a few steps are usual, 60 halvings would also do
        tilted = _tilt(scores, mask, beta)
        if not (live & ((tilted.kl - target).abs() > 1e-12 + 1e-9 * target)).any():
            break
        below = tilted.kl < target
        low, high = torch.where(below, beta, low), torch.where(below, high, beta)
        first = (tilted.q * scores).sum(-1)
        slope = beta * ((tilted.q * scores.square()).sum(-1) - first.square())  # d KL / d beta
        newton = beta - (tilted.kl - target) / slope.clamp(min=1e-300)
        beta = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
    return _tilt(scores, mask, torch.where(live, beta, torch.zeros_like(beta)))


def capped(weights: TokenWeights, mask: Tensor, largest: float) -> TokenWeights:
    """The closest distribution in KL with no weight above `largest` / tokens: the excess of a row goes to its other
    tokens, in proportion to their weights."""
    count = mask.sum(-1, keepdim=True)
    limit = torch.where(count > 0, largest / count.clamp(min=1).double(), 1.0)
    q = weights.q
    free = q.clamp(min=1e-200)  # the excess must have somewhere to go, even where all other weights are nothing
    full = torch.zeros_like(mask)
    for _ in range(mask.shape[-1]):
        over = mask & ~full & (q > limit)
        if not over.any():
            break
        full = full | over
        rest = (1.0 - (limit * full).sum(-1, keepdim=True)).clamp(min=0.0)
        others = free.masked_fill(full | ~mask, 0.0)
        q = torch.where(full, limit, others * rest / others.sum(-1, keepdim=True).clamp(min=1e-300))
    kl = torch.special.xlogy(q, q).sum(-1) + count.squeeze(-1).clamp(min=1).double().log()
    return _weights(q, kl, mask)


def _neutralised(utility: Tensor, mask: Tensor) -> Tensor:
    """Utilities in float64, those not finite replaced by the mean of their row's finite ones."""
    utility = utility.detach().double()
    usable = mask & utility.isfinite()
    count = usable.sum(-1, keepdim=True).clamp(min=1)
    mean = utility.where(usable, torch.zeros_like(utility)).sum(-1, keepdim=True) / count
    return utility.where(usable, mean.expand_as(utility))


def _shifted(utility: Tensor, mask: Tensor) -> Tensor:
    """Utilities minus their row's largest, so that all are at most 0; 0 outside the mask."""
    largest = utility.masked_fill(~mask, -math.inf).amax(-1, keepdim=True)
    return torch.where(mask, utility - largest, 0.0)


def _tilt(scores: Tensor, mask: Tensor, beta: Tensor) -> TokenWeights:
    """q proportional to exp(beta * scores), with its KL; `scores` are at most 0."""
    count = mask.sum(-1)
    exponents = (beta.unsqueeze(-1) * scores).masked_fill(~mask, -math.inf)
    log_normaliser = torch.where(count > 0, torch.logsumexp(exponents, -1), 0.0)
    q = torch.where(mask, (exponents - log_normaliser.unsqueeze(-1)).exp(), 0.0)
    kl = beta * (q * scores).sum(-1) - log_normaliser + count.clamp(min=1).double().log()
    return _weights(q, kl, mask)


def _weights(q: Tensor, kl: Tensor, mask: Tensor) -> TokenWeights:
    return TokenWeights(q, kl.masked_fill(~mask.any(-1), 0.0).clamp(min=0.0))
