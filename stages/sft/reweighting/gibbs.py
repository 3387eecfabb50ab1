"""Token weights as Gibbs distributions: q proportional to exp(utility / temperature), one distribution per trajectory.

It maximises the expected utility under a bound on KL(q || uniform) (VCORE, arXiv 2510.27462); the temperature is the
bound's multiplier. A utility that is not finite counts as its row's mean. Everything is computed in float64, and
nothing looks at a value: an accelerator that has to answer stops, so loops have a fixed length.
"""

import dataclasses
import math

import torch
from torch import Tensor

SEARCH_STEPS = 32
"""Evaluations in the search for a row's temperature; test_gibbs.py has rows that need most of them."""
LARGEST_FACTOR = 16.0
"""By which one of them may raise the inverse temperature, or lower it where no lower bound is known yet."""
FREE_LOOKS = ("cpu",)
"""Devices on which a loop may end early, since looking at a value costs nothing there. The result is the same."""


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

    beta = _beta_of_kl(scores, mask, target, live, guess=max(1e-6, math.sqrt(2 * kl)))
    return _tilt(scores, mask, torch.where(live, beta, torch.zeros_like(beta)))


def _beta_of_kl(scores: Tensor, mask: Tensor, target: Tensor, live: Tensor, guess: float) -> Tensor:
    """The inverse temperature of each row at which its KL is `target`, [rows]; anything where `live` is false.

    Newton's method for sqrt(2 KL), which is about the inverse temperature for scores of unit variance, where it stays
    within the bounds known so far, and bisection of their logarithms elsewhere. A row that has arrived stays.
    """
    beta = torch.full_like(target, guess)
    low, high = torch.zeros_like(beta), torch.full_like(beta, math.inf)
    root = (2 * target).sqrt()
    for _ in range(SEARCH_STEPS):
        tilted = _tilt(scores, mask, beta)
        arrived = ~live | ((tilted.kl - target).abs() <= 1e-12 + 1e-9 * target)
        if beta.device.type in FREE_LOOKS and bool(arrived.all()):
            break
        below = tilted.kl < target
        low, high = torch.where(below, beta, low), torch.where(below, high, beta)
        first = (tilted.q * scores).sum(-1)
        variance = (tilted.q * scores.square()).sum(-1) - first.square()
        size = (2 * tilted.kl).sqrt()
        newton = beta - (size - root) * size / (beta * variance).clamp(min=1e-300)  # d KL / d beta = beta * variance
        top = torch.minimum(high, LARGEST_FACTOR * beta)
        bottom = torch.where(low > 0, low, top / LARGEST_FACTOR**2)
        middle = torch.where(high.isfinite(), (bottom * high).sqrt(), top)
        beta = beta.where(arrived, torch.where((newton > low) & (newton < top), newton, middle))
    return beta


def capped(weights: TokenWeights, mask: Tensor, largest: float) -> TokenWeights:
    """The closest distribution in KL with no weight above `largest` / tokens: the excess of a row goes to its other
    tokens, in proportion to their weights."""
    count = mask.sum(-1, keepdim=True)
    limit = torch.where(count > 0, largest / count.clamp(min=1).double(), 1.0)
    free = weights.q.clamp(min=1e-200) * mask  # the excess must have somewhere to go, even where others are nothing
    ordered, order = free.sort(-1, descending=True)
    others = ordered.flip(-1).cumsum(-1).flip(-1)  # of a token and all that weigh less
    before = torch.arange(mask.shape[-1], device=mask.device)
    raised = (1.0 - limit * before) / others.clamp(min=1e-300)  # what these are multiplied by if all before are cut
    fits = ordered * raised <= limit  # for one token and so for all after it
    cut = (~fits & (before < count)).cumprod(-1).sum(-1, keepdim=True)
    factor = raised.gather(-1, cut.clamp(max=mask.shape[-1] - 1)).clamp(min=0.0)
    full = torch.zeros_like(mask).scatter(-1, order, before < cut)
    q = torch.where(full, limit, free * factor)
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
