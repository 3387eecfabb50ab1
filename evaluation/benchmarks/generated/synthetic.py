"""What the generated tasks share: splits that are disjoint by construction, and distinct problems from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SPLITS = ("train", "dev", "test")


def split_of(computation: str) -> str:
    """The split that a computation belongs to: 80 % train, 10 % dev, 10 % test.

    It depends on the computation alone, not on the seed or the wording: no seed can put a computation of the test split
    into training data, and two problems that differ only in names or verbs are in the same split.
    """
    bucket = int.from_bytes(hashlib.sha256(f"split/{computation}".encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "dev"}.get(bucket, "train")


def stream(*parts: str | int) -> random.Random:
    """The random stream of a name; drawing more from one stream changes nothing in another."""
    return random.Random("/".join(map(str, parts)))


def digest(text: str) -> str:
    """Twelve hexadecimal digits that identify a problem."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def draw_distinct(
    draw: Callable[[], T], computation: Callable[[T], str], text: Callable[[T], str], split: str, n: int
) -> list[T]:
    """`n` draws whose computation belongs to `split` and whose texts all differ.

    Args:
        draw: makes one random problem, of any split.
        computation: the text that `split_of` decides by.
        text: the text in which no two problems may agree.
        split: one of `SPLITS`.
        n: how many.

    Raises:
        ValueError: the split is unknown, or has too few distinct problems.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}")
    distinct: dict[str, T] = {}
    for _ in range(1000 + 500 * n):
        if len(distinct) >= n:
            return list(distinct.values())
        problem = draw()
        if split_of(computation(problem)) == split:
            distinct.setdefault(text(problem), problem)
    raise ValueError(f"the {split} split has too few distinct problems: asked for {n}, found {len(distinct)}")
