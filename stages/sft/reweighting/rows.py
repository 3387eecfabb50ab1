"""Rows told apart by their tokens, so that what is drawn or remembered for a row does not depend on how rows are batched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from stages.sft.reweighting.base import Batch


def row_digests(batch: Batch) -> list[str]:
    """A digest of each row's tokens and labels, padding left out."""
    present = batch["attention_mask"].bool().cpu().numpy()
    tokens, labels = batch["input_ids"].cpu().numpy(), batch["labels"].cpu().numpy()
    return [_digest(tokens[row, present[row]], labels[row, present[row]]) for row in range(len(tokens))]


def _digest(tokens: np.ndarray, labels: np.ndarray) -> str:
    content = np.concatenate([tokens, labels]).astype(np.int64).tobytes()
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def draw_for_rows(
    batch: Batch, seed: int, step: int, draw: Callable[[np.random.Generator, int], np.ndarray]
) -> torch.Tensor:
    """`draw(generator, count)` for each row's next-token positions, by (seed, step, the row's tokens): [rows, positions - 1].

    The columns of padding are drawn as well, after the others, so that its width does not matter.
    """
    width = batch["labels"].shape[1] - 1
    rows = [draw(np.random.default_rng([seed, step, int(digest, 16)]), width) for digest in row_digests(batch)]
    return torch.from_numpy(np.stack(rows))
