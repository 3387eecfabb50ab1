"""Weights from the likelihood of the demonstrations themselves: of a token (DFT), or of a trajectory (iw-SFT)."""

from __future__ import annotations

from typing import Any

import torch

from stages.sft.method_settings import IwSftSettings
from stages.sft.reweighting.base import Evaluator, Method, Prepared, Window, row_digests


class Dft(Method):
    """Dynamic fine-tuning (Wu et al. 2025, arXiv 2508.05629).

    Each token's loss times the model's own probability of that token, taken as a constant.
    """

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        return torch.exp(-losses)


class IwSft(Method):
    """Importance-weighted SFT (Qin & Springenberg 2025, arXiv 2507.12856).

    Each trajectory's tokens times exp(temperature * mean log-ratio to the initial model), clipped at `max_weight`. The
    initial model's losses are measured once, over all rows, before the first step; a checkpoint carries them.
    """

    def __init__(self, settings: IwSftSettings) -> None:
        self.settings = settings
        self.reference: dict[str, float] = {}
        """Digest of a row -> its mean loss under the model that training started from."""

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        if not self.reference:
            self.reference = model.mean_losses_of_all_rows()
        rows = ([self.reference[row] for row in row_digests(batch)] for batch in window.batches)
        return [{"reference": torch.tensor(means)} for means in rows]

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        mean = losses.sum(-1) / mask.sum(-1).clamp(min=1)
        ratio = self.settings.temperature * (prepared["reference"].to(losses) - mean)
        return ratio.exp().clamp(max=self.settings.max_weight).unsqueeze(-1).expand_as(losses)

    def state(self) -> dict[str, Any]:
        return {"reference": self.reference}

    def restore(self, state: dict[str, Any]) -> None:
        self.reference = state["reference"]
