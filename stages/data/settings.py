"""Settings of the data stage: where SFT rows, RL prompts and benchmark problems come from."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from stages.settings import StageSettings, execution, identity


class Columns(StageSettings):
    """Names of the columns of a dataset that is not one of our tasks."""

    prompt: str = identity("prompt")
    completion: str | None = identity("completion")
    """Column with the demonstration (SFT)."""
    answer: str | None = identity(None)
    """Column with the gold answer (RL, maths)."""


class SourceSettings(StageSettings):
    """One source of training rows: a task of ours by name, or any dataset with a mapping of its columns."""

    task: str | None = identity(None)
    """A benchmark that has a `train` split, for example word_problems, tiny_code or gsm8k."""
    file: str | None = execution(None)
    """A local .jsonl, .jsonl.gz or .parquet file. Its path is execution: its digest is an input and enters the key."""
    hub: str | None = identity(None)
    """A dataset on the hub."""
    hub_config: str | None = identity(None)
    revision: str = identity("main")
    """Hub revision; resolved to a commit, which enters the key."""
    split: str = identity("train")
    columns: Columns = identity(Columns())
    rows: int | None = identity(None, gt=0)
    """How many rows to take (the first ones of a file or hub dataset; how many to make for a generated task). None: all."""
    seed: int | None = identity(None)
    """Seed for generated rows; None takes the pipeline's seed."""

    @model_validator(mode="after")
    def _one_origin(self) -> SourceSettings:
        if sum(value is not None for value in (self.task, self.file, self.hub)) != 1:
            raise ValueError("set exactly one of task, file and hub")
        return self


class BenchmarkSource(StageSettings):
    """Which problems of a benchmark are materialised; the orchestrator fills this from the top-level `benchmarks:`."""

    name: str = identity()
    split: Literal["test", "dev"] = identity("test")
    problems: int | None = identity(None, gt=0)
    """How many problems (the first ones; how many to make for a generated benchmark). None: all."""
    seed: int = identity(0)
    """Seed for generated problems."""


class DataSettings(StageSettings):
    """What the dataset artifact holds. `benchmarks` comes from the pipeline's top level and is not written by hand."""

    sft: list[SourceSettings] = identity([])
    rl: list[SourceSettings] = identity([])
    benchmarks: list[BenchmarkSource] = identity([])
    refuse_overlap: bool = identity(True)
    """Stop when a training prompt equals a benchmark prompt (compared without case, punctuation and spacing)."""
