"""The methods that VCORE is compared with: published ones, and controls whose weights are drawn."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.sft.method_settings import IwSftSettings, NoiseSettings, RandomSettings
from stages.sft.reweighting.base import Batch, Evaluator, Method, Prepared, Window, row_digests, supervised
from stages.sft.reweighting.gibbs import weights_within_kl

BOX = re.compile(r"\\boxed\s*\{")


class Dft(Method):
    """Dynamic fine-tuning (Wu et al. 2025, arXiv 2508.05629): a token's loss times its probability."""

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        return torch.exp(-losses)  # detached: a constant factor


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
        return [{"reference": torch.tensor(self._means(batch))} for batch in window.batches]

    def _means(self, batch: Batch) -> list[float]:
        """The reference of each row; 0 for one without supervised tokens, which only fills a batch and has none."""
        rows = zip(row_digests(batch), supervised(batch).any(-1).tolist(), strict=True)
        return [self.reference[digest] if labelled else 0.0 for digest, labelled in rows]

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        mean = losses.sum(-1) / mask.sum(-1).clamp(min=1)
        ratio = self.settings.temperature * (prepared["reference"].to(losses) - mean)
        return ratio.exp().clamp(max=self.settings.max_weight).unsqueeze(-1).expand_as(losses)

    def state(self) -> dict[str, Any]:
        return {"reference": self.reference}

    def restore(self, state: dict[str, Any]) -> None:
        self.reference = state["reference"]


class RandomTokens(Method):
    """The Random baseline of the paper's Table 1: some random tokens, and all inside a \\boxed{...}, keep their loss.

    The loss is the mean over the tokens that keep it, as if the others were masked like the prompt.
    """

    def __init__(self, settings: RandomSettings, tokenizer: Any, seed: int) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.seed = seed

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        masks = [self._chosen(batch, window.step) & supervised(batch).cpu() for batch in window.batches]
        [count] = model.sum_over_ranks([float(sum(mask.sum() for mask in masks))])
        factor = window.tokens / max(count, 1.0)
        return [{"factors": factor * mask.float()} for mask in masks]

    def _chosen(self, batch: Batch, step: int) -> Tensor:
        chosen = draw_for_rows(batch, self.seed, step, np.random.Generator.random) < self.settings.kept
        if self.settings.keep_boxed:
            rows = zip(batch["input_ids"].cpu().numpy(), batch["labels"].cpu().numpy(), strict=True)
            for row, (tokens, labels) in enumerate(rows):
                positions = np.flatnonzero(labels != -100)
                boxed = boxed_tokens([self.tokenizer.decode([int(token)]) for token in tokens[positions]])
                chosen[row, torch.from_numpy(positions[boxed] - 1)] = True  # a loss stands one before its label
        return chosen

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        return prepared["factors"].to(losses)


class Noise(Method):
    """Gibbs weights within the same KL budget as VCORE's, of normally distributed utilities drawn afresh each time."""

    def __init__(self, settings: NoiseSettings, seed: int) -> None:
        self.settings = settings
        self.seed = seed

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        draw = np.random.Generator.standard_normal
        return [{"utility": draw_for_rows(batch, self.seed, window.step, draw)} for batch in window.batches]

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        weights = weights_within_kl(prepared["utility"].to(losses.device), mask, self.settings.kl)
        return (weights.q * mask.sum(-1, keepdim=True)).to(torch.float32)


def draw_for_rows(batch: Batch, seed: int, step: int, draw: Callable[[np.random.Generator, int], np.ndarray]) -> Tensor:
    """`draw(generator, count)` for each row by (seed, step, the row's tokens), count = positions - 1: [rows, count].
    Padding comes last in a row, so its width does not matter."""
    width = batch["labels"].shape[1] - 1
    rows = [draw(np.random.default_rng([seed, step, int(digest, 16)]), width) for digest in row_digests(batch)]
    return torch.from_numpy(np.stack(rows))


def boxed_tokens(pieces: list[str]) -> np.ndarray:
    """Which tokens hold a character of a \\boxed{...}, its command and braces included; `pieces` are the tokens' texts.
    A box that is never closed reaches to the end."""
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
