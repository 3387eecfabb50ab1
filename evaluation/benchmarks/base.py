"""What a benchmark is: where its problems come from, and how each becomes a prompt with a gold reference.

One object serves evaluation and RL reward: the same prompt, gold answer and grader (chosen by `Problem.kind`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.records import Kind, Problem


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the rows of one split are read: a file below a local data folder, or a dataset on the Hugging Face hub."""

    local: str
    """Path of the file below the folder."""
    hub: str
    """Name of the dataset, OWNER/NAME."""
    hub_split: str
    hub_config: str | None = None
    files: tuple[str, ...] = ()
    """Files of JSON lines, where there are several: below the local folder `local`, and in the hub's repository, which
    are then read as they are."""
    rows_in: str = ""
    """File of JSON lines with the rows, where problems are more than rows: `local` is then a folder, a copy of the
    hub's whole repository, that holds the file; and each row has the folder's path in `folder`."""
    origin: str = ""
    """Where the local file comes from, if it is not the hub's."""
    loose_csv: bool = False
    """Whether the local file of comma-separated values breaks the form's rules, and has to be read all the same: then
    rows that a missing quotation mark swallowed show by what the benchmark's parser needs, and by the set's size."""
    revision: str = "main"
    """Revision on the hub; the commit it stands for enters the stage's key."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A named set of problems, which come from `sources` by `parse`, or are made from a seed by `generate`.

    Its splits are `test`, and `train` and `dev` where it is meant for training too; the three are disjoint.

    Attributes:
        kind: decides which grader judges the answers.
        size: number of problems in the complete test split; None where problems are generated.
        digest: `evaluation.loading.digest` of the complete test split that this project was checked against, or None.
        sources: split -> where its rows are; empty for a generated benchmark.
        parse: `(split, rows)` -> problems; raises `RecordError` on a row, or a whole set, that is not as it should be.
        generate: `(split, n, seed)` -> n distinct problems.
        demonstrate: `(problems, seed)` -> one completion for each training problem, the SFT target.
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
