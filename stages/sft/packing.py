"""The rows of a micro-batch as one row of the model's input, end to end and without padding.

Each token has the position that it has in its own row, and sees its own row alone: attention gets the rows apart again,
everything else works on tokens one by one. Losses, methods and heads get hidden states as if there had been padding, so
a step is the same up to rounding.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stages.harness.context import StageError
from stages.sft.row_values import Batch
from stages.sft.trl_internals import (
    attention_set_to,
    language_model,
    no_masks,
    sdpa_attention_forward,
    token_log_probs,
)
from stages.training.same_outputs import check_same, require_full_attention

SETTING = "sft.packing"
ROWS = "rows_end_to_end"
"""Argument by which the rows go from a model's backbone to its layers' attention."""
ATTENTION = "rows_end_to_end"
ALIKE = 0.8
"""Share of the longest row's tokens that others have at least where attention is computed for them together."""
TRIED = (12, 10, 7, 1)
"""Tokens of the rows with which `require_same` tries a model; attention is computed for the first two together."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where tokens that stand end to end have their places in rows of their own, padded on the right."""

    shape: tuple[int, int]
    """Rows, and positions of each."""
    places: Tensor
    """Of each token its place, counted row by row, [tokens]."""

    @staticmethod
    def of(mask: Tensor) -> "Rows":
        """The rows whose tokens are not 0 in `mask`, [rows, positions]."""
        return Rows((mask.shape[0], mask.shape[1]), mask.flatten().nonzero().squeeze(-1))

    @property
    def positions(self) -> Tensor:
        """Of each token its position in its row, [tokens]."""
        return self.places % self.shape[1]

    @cached_property
    def alike(self) -> list[tuple[Tensor, "Rows"]]:
        """Rows of about the same length together: the numbers of their tokens, and the rows, with little padding."""
        lengths = torch.bincount(self.places // self.shape[1], minlength=self.shape[0]).tolist()
        ends = list(itertools.accumulate(lengths))
        groups: list[list[int]] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            if not groups or lengths[row] < ALIKE * lengths[groups[-1][0]]:
                groups.append([])
            groups[-1].append(row)
        parts = []
        for group in groups:
            width = max(1, lengths[group[0]])
            own = [range(ends[row] - lengths[row], ends[row]) for row in group]
            tokens = [token for numbers in own for token in numbers]
            places = [place * width + at for place, numbers in enumerate(own) for at in range(len(numbers))]
            numbers, there = (
                torch.tensor(each, dtype=torch.long, device=self.places.device) for each in (tokens, places)
            )
            parts.append((numbers, Rows((len(group), width), there)))
        return parts

    @cached_property
    def back(self) -> Tensor:
        """Of each token where it stands in the tokens of `alike`, one group after the other, [tokens]."""
        return torch.cat([numbers for numbers, _ in self.alike]).argsort()

    def end_to_end(self, values: Tensor) -> Tensor:
        """[rows, positions, ...] -> [tokens, ...]"""
        return values.flatten(0, 1)[self.places]

    def apart(self, values: Tensor) -> Tensor:
        """[tokens, ...] -> [rows, positions, ...], with zeros at padding."""
        rows, positions = self.shape
        empty = values.new_zeros((rows * positions, *values.shape[1:]))
        return empty.index_copy(0, self.places, values).unflatten(0, self.shape)


def in_rows(attention: Callable[..., tuple[Tensor, Any]]) -> Callable[..., tuple[Tensor, Any]]:
    """An attention of transformers for rows that stand end to end; others go through as they are.

    Queries, keys and values are [1, heads, tokens, width] then. Padding comes after a row's tokens, so that causal
    attention without a mask does not see it: `attention` is given none, for which kernels are fastest, and rows of like
    length at a time.
    """

    def forward(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> Any:
        rows: Rows | None = options.pop(ROWS, None)
        if rows is None:
            return attention(module, query, key, value, attention_mask, **options)
        tokens = [part[0].transpose(0, 1) for part in (query, key, value)]
        outs = []
        for numbers, some in rows.alike:
            parts = (some.apart(part[numbers]).transpose(1, 2) for part in tokens)
            outs.append(some.end_to_end(attention(module, *parts, None, **options)[0]))
        return torch.cat(outs)[rows.back].unsqueeze(0), None

    return forward


def _of_rows_only(*args: Any, **options: Any) -> Any:
    if ROWS not in options:
        fix = f"Leave {SETTING} out."
        raise StageError(f"{SETTING}: the layers of this model are not told which rows stand end to end", fix)
    return in_rows(sdpa_attention_forward)(*args, **options)


def _put_end_to_end(backbone: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    rows = Rows.of(kwargs["attention_mask"])
    ids = rows.end_to_end(kwargs["input_ids"]).unsqueeze(0)
    changed = {"input_ids": ids, "attention_mask": None, "position_ids": rows.positions.unsqueeze(0), ROWS: rows}
    return args, {**kwargs, **changed}


def _take_apart(backbone: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    output.last_hidden_state = kwargs[ROWS].apart(output.last_hidden_state[0])
    return output


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """Within: the model computes the rows of a batch end to end.

    Args:
        model: a causal language model, with peft's adapter or without, not wrapped for data parallelism; its backbone
            is called with `input_ids` and `attention_mask`, [rows, positions], padded on the right.
    """
    backbone = language_model(model).base_model
    with ExitStack() as stack:
        stack.enter_context(attention_set_to(language_model(model), ATTENTION, _of_rows_only, masks=no_masks))
        stack.callback(backbone.register_forward_pre_hook(_put_end_to_end, with_kwargs=True).remove)
        # Before all others that look at hidden states: they expect rows.
        stack.callback(backbone.register_forward_hook(_take_apart, with_kwargs=True, prepend=True).remove)
        yield


def require_same(model: Any, *, experts: bool) -> None:
    """Raise `StageError` where the model would compute something else on rows that stand end to end.

    Args:
        model: as in `packed`, with TRL's fused head.
        experts: whether the loss that balances a mixture's experts is trained on; it looks for padding.
    """
    if experts:
        fix = f"Leave {SETTING} out."
        raise StageError(f"{SETTING}: the loss that balances experts expects the rows' padding", fix)
    require_full_attention(model, SETTING)
    modes = [(module, module.training) for module in model.modules()]
    batch = _tried(model)
    mask = batch["attention_mask"]
    rows = Rows.of(mask)
    one_row = {name: rows.end_to_end(value).unsqueeze(0) for name, value in batch.items()}
    model.eval()
    try:
        with torch.no_grad():
            alone, sees_all = token_log_probs(model, batch), token_log_probs(model, one_row)
            with packed(model):
                ours = token_log_probs(model, batch)
    except (TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StageError(
            f"{SETTING}: this model cannot compute rows end to end: {reason}", f"Leave {SETTING} out."
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    first = torch.zeros_like(sees_all[0, :1])  # of a row's first token there is no log-probability
    counts = mask[:, 1:] != 0
    blind = rows.apart(torch.cat([first, sees_all[0]]))[:, 1:]
    exact = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    ours, alone, blind = (part * counts for part in (ours, alone, blind))
    check_same(ours, alone, blind, counts, SETTING, exact=exact)


def _tried(model: Any) -> Batch:
    """Rows of different lengths whose tokens are drawn from the vocabulary."""
    device, width = next(model.parameters()).device, max(TRIED)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (len(TRIED), width), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(width) < torch.tensor(TRIED).unsqueeze(-1)).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    return {name: value.to(device) for name, value in batch.items()}
