"""The control for VCORE: weights as far from uniform as its own, of utilities that mean nothing."""

from __future__ import annotations

import numpy as np
import torch

from stages.sft.method_settings import NoiseSettings
from stages.sft.reweighting.base import Evaluator, Method, Window
from stages.sft.reweighting.gibbs import weights_within_kl
from stages.sft.reweighting.rows import draw_for_rows


class Noise(Method):
    """Gibbs weights within the same KL budget as VCORE's, of normally distributed utilities drawn afresh each time."""

    def __init__(self, settings: NoiseSettings, seed: int) -> None:
        self.settings = settings
        self.seed = seed

    def prepare(self, window: Window, model: Evaluator) -> list[dict[str, torch.Tensor]]:
        def draw(generator: np.random.Generator, count: int) -> np.ndarray:
            return generator.standard_normal(count)

        return [{"utility": draw_for_rows(batch, self.seed, window.step, draw)} for batch in window.batches]

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        weights = weights_within_kl(prepared["utility"].to(losses.device), mask, self.settings.kl)
        return (weights.q * mask.sum(-1, keepdim=True)).to(torch.float32)
