"""Importance-weighted SFT (Qin & Springenberg 2025, arXiv 2507.12856)."""

from __future__ import annotations

from typing import Any

import torch

from stages.sft.method_settings import IwSftSettings
from stages.sft.reweighting.base import Evaluator, Method, Window
from stages.sft.reweighting.rows import row_digests


class IwSft(Method):
    """Each trajectory's tokens times exp(temperature * mean log-ratio to the initial model), clipped at `max_weight`.

    The initial model's losses are measured once, over all rows, before the first step; a resumed run takes them from the checkpoint.
    """

    def __init__(self, settings: IwSftSettings) -> None:
        self.settings = settings
        self.reference: dict[str, float] = {}
        """Digest of a row -> its mean loss under the model that training started from."""

    def prepare(self, window: Window, model: Evaluator) -> list[dict[str, torch.Tensor]]:
        if not self.reference:
            self.reference = model.mean_losses_of_all_rows()
        return [
            {"reference": torch.tensor([self.reference[row] for row in row_digests(batch)])} for batch in window.batches
        ]

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        mean = losses.sum(-1) / mask.sum(-1).clamp(min=1)
        ratio = self.settings.temperature * (prepared["reference"].to(losses) - mean)
        return ratio.exp().clamp(max=self.settings.max_weight).unsqueeze(-1).expand_as(losses)

    def state(self) -> dict[str, Any]:
        return {"reference": self.reference}

    def restore(self, state: dict[str, Any]) -> None:
        self.reference = state["reference"]
