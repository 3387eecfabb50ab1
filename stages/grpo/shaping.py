"""Parts of the reward that look at the form of a completion alone: no model, no grader. Penalties lie in [-1, 0]."""

from __future__ import annotations

from collections.abc import Sequence


def overlong_penalty(tokens: int, finished: bool, limit: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13): 0 up to `limit - buffer` tokens, then linear down to -1 at `limit`.

    A completion that was cut has -1 at any length: it would have gone on.
    """
    if not finished:
        return -1.0
    return -min(1.0, max(0.0, (tokens - (limit - buffer)) / buffer))


def repetition_penalty(ids: Sequence[int], ngram: int) -> float:
    """Minus the share of n-grams of tokens that occurred before in the completion; 0 where it is shorter than one n-gram."""
    total = len(ids) - ngram + 1
    if total <= 0:
        return 0.0
    return len({tuple(ids[start : start + ngram]) for start in range(total)}) / total - 1.0
