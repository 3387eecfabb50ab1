"""Which rows go through the model together: those of like length, so that little of what it computes is padding."""

from collections.abc import Callable, Sequence

Lengths = tuple[int, ...]
"""Of a row: the tokens of each part that is padded by itself, as prompt and completion are in GRPO."""


MOST_PADDED = 4
"""How many times a budget of tokens the positions may be, where their padding does not count."""
Dealt = list[tuple[list[int], Lengths]]
"""Of each micro-batch: the numbers of its rows, and the widths its parts need."""


def deal(lengths: Sequence[Lengths], size: int, multiple: int | None = None) -> Dealt:
    """Micro-batches of `size` rows; the last may have fewer.

    Rows are sorted by their first part, by their last, or by the sum, whichever leaves the fewest positions. The
    longest go first, so that a micro-batch that does not fit into memory fails at once. Widths are multiples of
    `multiple` and at least 1, since no model takes an empty row.
    """
    starts = range(0, len(lengths), size)
    cuts = [(start, min(start + size, len(lengths))) for start in starts]
    return min((_cut(lengths, order, cuts, multiple or 1) for order in _orders(lengths)), key=_positions)


def deal_together(lengths: Sequence[Lengths], groups: Sequence[int], size: int, multiple: int | None = None) -> Dealt:
    """As `deal`, but rows of one of the `groups`, a number for each row, follow one another."""
    rows_of: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)
    longest_first = sorted(rows_of.values(), key=lambda rows: sum(sum(lengths[row]) for row in rows), reverse=True)
    order = [row for rows in longest_first for row in rows]
    cuts = [(start, min(start + size, len(order))) for start in range(0, len(order), size)]
    return _cut(lengths, order, cuts, multiple or 1)


def deal_within(
    lengths: Sequence[Lengths],
    budget: int,
    multiple: int | None = None,
    everyone: Callable[[list[Lengths]], list[list[Lengths]]] = lambda mine: [mine],
    *,
    padded: bool = True,
) -> Dealt:
    """As `deal`, but micro-batches of at most `budget` positions; a longer row goes alone.

    `padded`: whether padding counts. Where rows are put end to end it takes part in the last hidden states alone, and
    may be `MOST_PADDED` times the budget.

    Where each process has as many rows as the others, which call this at the same time, `everyone` gathers what they
    have: all then have as many micro-batches, each of as many rows, since what is measured in one is gathered, too.
    """

    step = multiple or 1

    def positions(order: list[int]) -> int:
        return _positions(_cut(lengths, order, _cuts([[lengths[row] for row in order]], budget, step, padded), step))

    order = min(_orders(lengths), key=positions)
    return _cut(lengths, order, _cuts(everyone([lengths[row] for row in order]), budget, step, padded), step)


def _orders(lengths: Sequence[Lengths]) -> list[list[int]]:
    keys: list[Callable[[int], Lengths]] = [
        lambda row: lengths[row],
        lambda row: lengths[row][::-1],
        lambda row: (sum(lengths[row]), *lengths[row]),
    ]
    return [sorted(range(len(lengths)), key=key, reverse=True) for key in keys]


def _cuts(of_all: list[list[Lengths]], budget: int, multiple: int, padded: bool) -> list[tuple[int, int]]:
    """First and past the last of each micro-batch, so that each process' sorted rows keep within the budget."""

    def size(rows: list[Lengths]) -> float:
        positions = len(rows) * sum(_widths(rows, multiple))
        return positions if padded else max(sum(map(sum, rows)), positions / MOST_PADDED)

    cuts, first = [], 0
    for row in range(1, len(of_all[0])):
        if any(size(rows[first : row + 1]) > budget for rows in of_all):
            cuts.append((first, row))
            first = row
    return [*cuts, (first, len(of_all[0]))]


def _cut(lengths: Sequence[Lengths], order: list[int], cuts: list[tuple[int, int]], multiple: int) -> Dealt:
    parts = [order[first:last] for first, last in cuts]
    return [(part, _widths([lengths[row] for row in part], multiple)) for part in parts]


def _positions(dealt: Dealt) -> int:
    return sum(len(rows) * sum(widths) for rows, widths in dealt)


def _widths(lengths: list[Lengths], multiple: int) -> Lengths:
    return tuple(-(-max(1, *part) // multiple) * multiple for part in zip(*lengths, strict=True))
