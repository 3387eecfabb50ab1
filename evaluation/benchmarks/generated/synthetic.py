"""What the generated tasks share: splits that are disjoint by construction, and distinct problems drawn from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SPLITS = ("train", "dev", "test")


def split_of(computation: str) -> str:
    """The split that a computation belongs to: 80 % train, 10 % dev, 10 % test.

    A function of the computation alone, not of the seed or of the wording: no seed can put a computation of the test split into
    training data, and two problems that differ only in names or verbs lie in the same split.
    """
    bucket = int.from_bytes(hashlib.sha256(f"split/{computation}".encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "dev"}.get(bucket, "train")


def stream(*parts: str | int) -> random.Random:
    """A random stream of its own for each name, so that drawing more from one changes nothing in another."""
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
        computation: what `split_of` decides by.
        text: in which no two problems may agree.
        split: one of `SPLITS`.
        n: how many.

    Raises:
        ValueError: an unknown split, or so many distinct problems do not turn up.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}")
    found: dict[str, T] = {}
    for _ in range(1000 + 500 * n):
        if len(found) >= n:
            return list(found.values())
        problem = draw()
        if split_of(computation(problem)) == split:
            found.setdefault(text(problem), problem)
    raise ValueError(f"the {split} split has too few distinct problems: asked for {n}, found {len(found)}")
