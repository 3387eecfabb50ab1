"""Rows of tokens and the numbers that stand beside them, from the data to the loss: through TRL's collator, and dealt
to micro-batches by length.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from stages.training import distributed
from stages.training.dealing import deal, deal_within

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


def dealt_by_length(
    batches: list[Batch],
    pad_token: int,
    multiple: int | None = None,
    max_tokens: int | None = None,
    *,
    packing: bool = False,
) -> list[Batch]:
    """The rows of one optimizer step, the longest first, in micro-batches of the same sizes with little padding.

    The step's loss is a sum over its rows, so that only rounding depends on which of them are padded together.

    Args:
        batches: the micro-batches as drawn, padded on the right; each entry is [rows, positions], or [rows] where it
            is of `KINDS`.
        pad_token: what `input_ids` are padded with.
        multiple: of which the numbers of positions are.
        max_tokens: of a micro-batch, where that bounds it and not a number of rows; all processes have to call this
            then, and have as many micro-batches.
        packing: whether the model computes rows end to end, so that their padding does not count as tokens.
    """
    if len(batches) == 1:
        return batches
    width = max(batch["labels"].shape[1] for batch in batches)
    padding = {"input_ids": pad_token, "labels": -100, "attention_mask": 0}
    rows = {
        name: torch.cat([pad(batch[name], (0, width - batch[name].shape[1]), value=value) for batch in batches])
        for name, value in padding.items()
    }
    values = {name: torch.cat([batch[name] for batch in batches]) for name in KINDS if name in batches[0]}
    lengths = [(length,) for length in rows["attention_mask"].sum(-1).tolist()]
    if max_tokens is None:
        dealt = deal(lengths, len(batches[0]["labels"]), multiple)
    else:
        dealt = deal_within(lengths, max_tokens, multiple, distributed.gather, padded=not packing)
    return [
        {name: tokens[part, :width] for name, tokens in rows.items()}
        | {name: value[part] for name, value in values.items()}
        for part, [width] in dealt
    ]


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
