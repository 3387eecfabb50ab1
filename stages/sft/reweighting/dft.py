"""Dynamic fine-tuning (Wu et al. 2025, arXiv 2508.05629)."""

from __future__ import annotations

import torch

from stages.sft.reweighting.base import Method


class Dft(Method):
    """Each token's loss times the model's own probability of that token, taken as a constant."""

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.exp(-losses)
