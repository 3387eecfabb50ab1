"""Completions of one prompt as one row of the model's input, so that the prompt goes through the model once.

A row is the prompt without its last token, and then a segment for each completion: that token again, and the completion
without its own last one. A segment attends to the prompt and to itself, at the positions that its tokens have beside
the prompt alone, so each log-probability is that of the completion in a row of its own, up to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.training.same_outputs import has_dropout, require_full_attention

PROMPT, PADDING = 0, -1
"""Segments of a row's tokens; those of completions are 1, 2, ..."""
SETTING = "grpo.share_prompts"


def numbers(ids: Tensor, mask: Tensor) -> list[int]:
    """Of each prompt, [prompts, positions], the number of the first one with the same tokens."""
    _, of = ids.masked_fill(mask == 0, -1).unique(dim=0, return_inverse=True)
    firsts: dict[int, int] = {}
    return [firsts.setdefault(one, row) for row, one in enumerate(of.tolist())]


@dataclasses.dataclass(frozen=True)
class Shared:
    """Where the tokens of a micro-batch stand in rows of shared prompts.

    A micro-batch is [completions, prompt positions + completion positions], prompts padded on the left and completions
    on the right. The three tables are [rows, positions].
    """

    sources: list[list[int]]
    """Of each token of a row, its number in the micro-batch, counted row by row."""
    positions: list[list[int]]
    segments: list[list[int]]
    predicts: tuple[list[int], list[int], list[int]]
    """Of each completion token: where the token before it stands, counted over all rows; its number in the
    micro-batch; and its number in [completions, completion positions]."""

    @staticmethod
    def of(lengths: Sequence[tuple[int, ...]], prompts: Sequence[int], widths: tuple[int, ...]) -> Shared:
        """Lay out completions of these prompts.

        Args:
            lengths: tokens of each completion's prompt, and of itself.
            prompts: of each completion, a number that those of the same prompt share.
            widths: positions of prompts and of completions in the micro-batch.
        """
        start, keep = widths
        groups: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            groups.setdefault(prompt, []).append(row)
        tables = [_row(group, lengths, start, start + keep) for group in groups.values()]
        width = max(len(row[0]) for row in tables)
        sources, positions, segments = (
            [values + [filler] * (width - len(values)) for values in table]
            for table, filler in zip(zip(*(row[:3] for row in tables), strict=True), (0, 0, PADDING), strict=True)
        )
        places = [number * width + place for number, row in enumerate(tables) for place in row[3]]
        rows = [row for group in groups.values() for row in group]
        tokens = [(row, token) for row in rows for token in range(lengths[row][1])]
        labels = [row * (start + keep) + start + token for row, token in tokens]
        predicts = places, labels, [row * keep + token for row, token in tokens]
        return Shared(sources, positions, segments, predicts)

    @property
    def has_company(self) -> bool:
        """Whether two completions with tokens stand in one row: else there is nothing that must not be seen."""
        return any(len({*row} - {PROMPT, PADDING}) > 1 for row in self.segments)

    def score(
        self, model: Any, ids: Tensor, keep: int, *, entropy: bool = False, sees_all: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of the micro-batch `ids`, [completions, `keep`], 0 at padding, and entropies if asked for.

        `model` has TRL's fused output layer (trl.trainer.utils.add_fused_lm_head), and takes a mask of attention,
        [rows, 1, positions, positions]; `check_same` says whether it heeds it. With `sees_all`, for that, each token
        sees all before it, other completions as well.
        """
        sources, positions, segments = (
            torch.tensor(table, device=ids.device) for table in (self.sources, self.positions, self.segments)
        )
        before, tokens, after = (torch.tensor(places, device=ids.device, dtype=torch.long) for places in self.predicts)
        flat, width = ids.reshape(-1), sources.size(1)
        labels = torch.full((sources.numel(),), -100, device=ids.device)
        labels[before] = flat[tokens]
        asks, asked = segments.unsqueeze(2), segments.unsqueeze(1)
        causal = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
        attends = (((asks == asked) | (asked == PROMPT)) | sees_all) & causal
        outputs = model(
            input_ids=flat[sources],
            attention_mask=attends.unsqueeze(1),
            position_ids=positions,
            shift_labels=labels.view_as(sources),
            fused_lm_head=True,
        )

        def in_place(values: Tensor) -> Tensor:
            there = values.new_zeros(len(ids) * keep).index_put((after,), values.reshape(-1)[before])
            return there.view(len(ids), keep)

        return in_place(outputs.log_probs), in_place(outputs.entropy) if entropy else None


def _row(
    group: list[int], lengths: Sequence[tuple[int, ...]], start: int, width: int
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Sources, positions and segments of a row, and where in it the tokens before those of the completions stand."""
    prompt = lengths[group[0]][0]
    shared = prompt - 1
    sources = [group[0] * width + start - prompt + token for token in range(shared)]
    positions, segments, places = list(range(shared)), [PROMPT] * shared, []
    for segment, row in enumerate(group, 1):
        for token in range(lengths[row][1]):
            places.append(len(sources))
            sources.append(row * width + start - 1 + token)
            positions.append(shared + token)
            segments.append(segment)
    if not sources:  # a prompt of one token, of which no completion has any
        return [group[0] * width + start - 1], [0], [PROMPT], []
    return sources, positions, segments, places


def require_same(model: Any, *, experts: bool) -> None:
    """Raise `StageError` where a step on shared prompts would be another one than on rows of their own.

    `experts`: whether the loss that balances a mixture's experts is trained on, which counts the tokens of a prompt
    once for each of its completions.
    """
    fix = f"Leave {SETTING} out."
    if has_dropout(model):
        raise StageError(f"{SETTING}: this model drops activations, of each completion's prompt others", fix)
    if experts:
        raise StageError(f"{SETTING}: the loss that balances experts counts each completion's prompt", fix)
    require_full_attention(model, SETTING)
