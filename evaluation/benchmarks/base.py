"""What a benchmark is: where its problems come from and how each becomes a prompt with a gold reference.

One task object serves evaluation and RL reward: same prompt, same gold, same grader (chosen by `Problem.kind`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.records import Kind, Problem


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the rows of one split are read: a file below a local data folder, or a dataset on the Hugging Face hub."""

    local: str
    hub: str
    hub_split: str
    hub_config: str | None = None
    revision: str = "main"
    """Hub revision; the orchestrator resolves it to a commit, which enters the stage's key."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A named set of problems.

    Exactly one of `parse` (rows come from `sources`) and `generate` (problems are made from a seed) is set. Splits are `test`, and
    where training is meant too, `train` and `dev`; the three are disjoint.

    Attributes:
        size: number of problems in the complete test split, or None where problems are generated.
        sources: split -> source; empty for a generated benchmark.
        parse: `(split, rows)` -> problems; rows are plain dicts, as read from the local file or the hub dataset. Raises
            `evaluation.records.RecordError` on a row without the fields it needs.
        generate: `(split, n, seed)` -> n distinct problems.
        digest: `evaluation.loading.digest` of the complete test split that this project was checked against; None where none was.
        demonstrate: `(problems, seed)` -> one worked completion for each training problem (the SFT target).
    """

    name: str
    kind: Kind
    size: int | None
    digest: str | None = None
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    parse: Callable[[str, Iterable[Mapping[str, Any]]], list[Problem]] | None = None
    generate: Callable[[str, int, int], list[Problem]] | None = None
    demonstrate: Callable[[list[Problem], int], list[str]] | None = None

    def __post_init__(self) -> None:
        if (self.parse is None) == (self.generate is None):
            raise ValueError(f"benchmark {self.name}: set exactly one of parse and generate")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be loaded."""
        return tuple(self.sources) if self.generate is None else ("train", "dev", "test")
