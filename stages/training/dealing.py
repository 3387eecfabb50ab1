"""Which rows go through the model together: those of like length, so that little of what it computes is padding."""

from collections.abc import Callable, Sequence

Lengths = tuple[int, ...]
"""Of a row: the tokens of each part that is padded by itself, as prompt and completion are in GRPO."""


def deal(lengths: Sequence[Lengths], size: int, multiple: int | None = None) -> list[tuple[list[int], Lengths]]:
    """Numbers of the rows of each micro-batch of `size`, and the widths its parts need; the last may have fewer rows.

    Rows are sorted by their first part, by their last, or by the sum, whichever leaves the fewest positions. The
    longest go first, so that a micro-batch that does not fit into memory fails at once. Widths are multiples of
    `multiple` and at least 1, since no model takes an empty row.
    """

    def dealt(key: Callable[[Lengths], Lengths]) -> list[tuple[list[int], Lengths]]:
        order = sorted(range(len(lengths)), key=lambda row: key(lengths[row]), reverse=True)
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return [(part, _widths([lengths[row] for row in part], multiple or 1)) for part in parts]

    deals = map(dealt, (lambda row: row, lambda row: row[::-1], lambda row: (sum(row), *row)))
    return min(deals, key=lambda parts: sum(len(rows) * sum(widths) for rows, widths in parts))


def _widths(lengths: list[Lengths], multiple: int) -> Lengths:
    return tuple(-(-max(1, *part) // multiple) * multiple for part in zip(*lengths, strict=True))
