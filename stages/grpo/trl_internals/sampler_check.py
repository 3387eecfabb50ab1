"""How vLLM's log-probabilities differ from the trainer's, measured in the training forward.

TRL puts all completions of a rollout through the model before the first step on them. Where a rollout serves one step,
its training forward computes the same numbers: they are taken from there, under the names of TRL's curves, and one pass
of three is saved.
"""

import math
from typing import Any

import torch
from torch import Tensor

from stages.training import distributed

DIFFERENCE, RATIO = "sampling/sampling_logp_difference", "sampling/importance_sampling_ratio"
LOGPROB_DIFFERENCES = {name: f"{DIFFERENCE}/{name}" for name in ("max", "mean")}
"""TRL's curves of how the sampler's and the trainer's log-probability of a step's tokens differ, in nats: the proof
that vLLM holds the weights that are trained."""


class SamplerCheck:
    """Ratios of trainer to sampler probability as GRPOTrainer makes them, and what they were in an optimizer step."""

    def __init__(self, mode: str, lowest: float | None, highest: float | None) -> None:
        """GRPOConfig's `vllm_importance_sampling_mode`, and its bounds of a ratio, `..._clip_min` and `.._clip_max`."""
        self._by_sequence, self._truncates = mode.startswith("sequence_"), mode.endswith("_truncate")
        self._bounds = -math.inf if lowest is None else lowest, math.inf if highest is None else highest
        self._seen: list[Tensor] = []
        """Of each micro-batch since `curves`: see there."""

    def ratio(self, logps: Tensor, sampled: Tensor, mask: Tensor) -> Tensor:
        """What the losses of a micro-batch's tokens are multiplied by: [completions, positions], or [completions, 1].

        Args:
            logps: the trainer's log-probabilities, without gradient; all are [completions, positions].
            sampled: the sampler's; NaN, which counts as no difference, where it gave none.
            mask: the tokens of the completions.
        """
        difference = (logps - sampled) * mask
        known = mask.bool() & ~difference.isnan()
        difference = difference.nan_to_num(nan=0.0)
        ratio = (difference.sum(-1, keepdim=True) if self._by_sequence else difference).exp()
        low, high = self._bounds
        if self._truncates:
            ratio = ratio.clamp(min=low, max=high)
        else:
            ratio = ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
        sizes = difference.abs().where(known, 0.0)
        counted = torch.ones_like(ratio, dtype=torch.bool) if self._by_sequence else mask.bool()
        of_ratios = (
            ratio.where(counted, math.inf).amin(),
            ratio.where(counted, -math.inf).amax(),
            ratio.where(counted, 0.0).sum(),
            counted.sum(),
        )
        self._seen.append(torch.stack([known.sum(), sizes.sum(), sizes.amax(), *of_ratios]).double())
        return ratio

    def curves(self) -> dict[str, float]:
        """TRL's curves of the optimizer step that ends, over all processes, each of which has to call this."""
        seen, self._seen = self._seen, []
        rows: list[Any] = [row for part in distributed.gather(torch.stack(seen).tolist()) for row in part]
        tokens, size, largest, low, high, ratio, ratios = zip(*rows, strict=True)
        return {
            f"{DIFFERENCE}/mean": sum(size) / max(sum(tokens), 1.0),
            f"{DIFFERENCE}/max": max(largest),
            f"{RATIO}/min": min(low),
            f"{RATIO}/mean": sum(ratio) / max(sum(ratios), 1.0),
            f"{RATIO}/max": max(high),
        }
