"""The Random baseline of the VCORE paper (arXiv 2510.27462, Table 1)."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import torch

from stages.sft.method_settings import RandomSettings
from stages.sft.reweighting.base import Batch, Evaluator, Method, Window
from stages.sft.reweighting.rows import draw_for_rows

BOX = re.compile(r"\\boxed\s*\{")


class RandomTokens(Method):
    """A random share of the tokens, and all inside a \\boxed{...}, keep their loss; the others lose it.

    The loss is the mean over the tokens kept, as if the others were masked like the prompt.
    """

    def __init__(self, settings: RandomSettings, tokenizer: Any, seed: int) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.seed = seed

    def prepare(self, window: Window, model: Evaluator) -> list[dict[str, torch.Tensor]]:
        masks = [self._kept(batch, window.step) & (batch["labels"][:, 1:] != -100).cpu() for batch in window.batches]
        [kept] = model.sum_over_ranks([float(sum(mask.sum() for mask in masks))])
        factor = window.tokens / max(kept, 1.0)
        return [{"factors": factor * mask.float()} for mask in masks]

    def _kept(self, batch: Batch, step: int) -> torch.Tensor:
        kept = (
            draw_for_rows(batch, self.seed, step, lambda generator, count: generator.random(count)) < self.settings.kept
        )
        if self.settings.keep_boxed:
            for row, (tokens, labels) in enumerate(
                zip(batch["input_ids"].cpu().numpy(), batch["labels"].cpu().numpy(), strict=True)
            ):
                supervised = np.flatnonzero(labels != -100)
                inside = boxed_tokens([self.tokenizer.decode([int(token)]) for token in tokens[supervised]])
                kept[row, torch.from_numpy(supervised[inside] - 1)] = True  # losses are shifted by one against labels
        return kept

    def weigh(self, losses: torch.Tensor, mask: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        return prepared["factors"].to(losses)


def boxed_tokens(pieces: list[str]) -> np.ndarray:
    """Which tokens hold a character of a \\boxed{...}, the command and its braces included; `pieces` are the tokens' texts.

    A box that is never closed reaches to the end.
    """
    text = "".join(pieces)
    inside = np.zeros(len(text), dtype=bool)
    for match in BOX.finditer(text):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inside[match.start() : end] = True
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    return np.array([bool(inside[start:end].any()) for start, end in itertools.pairwise(starts)], dtype=bool)
