"""Numbers that stand beside a row of tokens, from the data to the loss: they go through TRL's collator, and are dealt
to micro-batches with their rows.
"""

import math
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
"""One collated micro-batch, as `stages.sft.reweighting.base` has it."""
WEIGHT = "weight"
"""A factor on the row's loss, whatever the method; of rows without one it is 1."""
PROMPT_TOKENS = "prompt_tokens"
"""How many of the row's tokens come before the answer; there where prompts carry a loss."""
KINDS = {WEIGHT: torch.float32, PROMPT_TOKENS: torch.int64}
"""What a row may have -> its type in a batch, where it is [rows]."""


class RowCollator:
    """TRL's collator of tokens, and beside it the numbers that the rows have."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    @property
    def pad_token_id(self) -> int:
        """What `input_ids` are padded with."""
        return int(self.collator.pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        batch: Batch = dict(self.collator(rows))
        for name, kind in KINDS.items():
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=kind)
        return batch


def times_row_weights(values: Tensor, batch: Batch) -> Tensor:
    """Values of tokens, [rows, positions], times the weights of their rows, where the batch has some."""
    weights = batch.get(WEIGHT)
    return values if weights is None else values * weights.to(values).unsqueeze(-1)


def of_prompts(batch: Batch) -> Tensor:
    """Which next tokens belong to the prompt, [rows, positions - 1]; none where prompts carry no loss."""
    labels = batch["labels"][:, 1:]
    if PROMPT_TOKENS not in batch:
        return torch.zeros_like(labels, dtype=torch.bool)
    return torch.arange(1, labels.shape[1] + 1, device=labels.device) < batch[PROMPT_TOKENS].unsqueeze(-1)


def is_weight(value: Any) -> bool:
    """Whether a row's weight is a number that its loss can be multiplied by."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
