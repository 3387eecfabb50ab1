"""What the generated tasks share: splits that are disjoint by construction, and distinct problems from a seed."""

import hashlib
import random
from collections.abc import Callable
from typing import Protocol, TypeVar


class Spec(Protocol):
    """A problem before it is put into words."""

    @property
    def computation(self) -> str:
        """What is computed, without the wording; decides the split."""

    @property
    def question(self) -> str:
        """The problem's text; no two problems of a set have the same."""


S = TypeVar("S", bound=Spec)

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


def draw_distinct(draw: Callable[[random.Random], S], name: str, split: str, n: int, seed: int) -> list[S]:
    """`n` problems of a split whose questions all differ.

    Args:
        draw: makes one random problem, of any split.
        name: of the benchmark; with split and seed it names the random stream.
        split: one of `SPLITS`.

    Raises:
        ValueError: the split is unknown, or has too few distinct problems.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}")
    rng = stream(name, split, seed)
    distinct: dict[str, S] = {}
    for _ in range(1000 + 500 * n):
        if len(distinct) >= n:
            return list(distinct.values())
        spec = draw(rng)
        if split_of(spec.computation) == split:
            distinct.setdefault(spec.question, spec)
    raise ValueError(f"the {split} split has too few distinct problems: asked for {n}, found {len(distinct)}")
