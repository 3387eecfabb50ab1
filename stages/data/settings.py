"""Settings of the data stage: where SFT rows, RL prompts and benchmark problems come from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from stages.generate.settings import Asked
from stages.harness.own_files import AskedColumns, CustomProblems
from stages.harness.settings import StageSettings, execution, identity, identity_where_set

TEXT_ENDINGS = (".csv", ".csv.gz")
"""Endings of tables whose cells are all text."""
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", *TEXT_ENDINGS, ".parquet")
"""Endings of files that rows are read from."""


class Columns(AskedColumns):
    """Names of the columns of training rows."""

    completion: str | None = identity("completion")
    """The demonstration (SFT): text, or a list of messages."""
    reasoning: str | None = identity(None)
    """What was thought before the `completion` (SFT), where a column of its own holds it."""
    weight: str | None = identity_where_set(None)
    """Column with the weight of a demonstration (SFT), a number of at least 0 that SFT multiplies its loss by."""

    @model_validator(mode="after")
    def _one_place_for_a_conversation(self) -> Self:
        if self.messages is not None and (self.prompt, self.completion, self.reasoning) != (
            "prompt",
            "completion",
            None,
        ):
            raise ValueError("messages: holds whole conversations; leave out prompt, completion and reasoning")
        return self


class SourceSettings(StageSettings):
    """One source of training rows: a task of ours by name, or any dataset with a mapping of its columns."""

    task: str | None = identity(None)
    """A benchmark that has a `train` split, for example word_problems, tiny_code or gsm8k."""
    file: str | None = execution(None)
    """A local file: .jsonl, .json (an array) or .csv, each also with .gz, or .parquet. Its path is execution: its
    digest is an input and enters the key."""
    hub: str | None = identity(None)
    """A dataset on the hub."""
    hub_config: str | None = identity(None)
    hub_files: list[str] = identity([])
    """Files of the hub dataset to read, where it holds several that do not belong together. Empty: as its card says."""
    revision: str = identity("main")
    """Hub revision; resolved to a commit, which enters the key."""
    split: str = identity("train")
    columns: Columns = identity(Columns())
    rows: int | None = identity(None, gt=0)
    """How many rows to take (of those that are kept; how many to make for a generated task). None: all."""
    shuffle: bool = identity(False)
    """Take `rows` at random, by the seed, instead of the first ones: of a file any, of a hub dataset, which is
    streamed, each out of the next so many that are held (`SHUFFLE_BUFFER` in stages/data/reading.py)."""
    where: dict[str, str | int | bool] = identity({})
    """Keep only rows whose columns have these values (file or hub)."""
    turns: Literal["all", "last"] = identity("all")
    """Which answers of a conversation of several turns are learnt (SFT): each, as a row of its own that ends with it,
    or only the last."""
    template: str | None = identity(None)
    """What the user message says, with {prompt} for the prompt column (and {tests} for a list of asserts): give RL and
    SFT rows the words the evaluation uses."""
    verified: bool = identity(False)
    """Keep only demonstrations whose final answer the maths grader finds equal to the column `answer` (SFT)."""
    verify: Literal["tests"] | None = identity_where_set(None)
    """`tests`: keep only demonstrations whose program passes the tests in `columns.tests` (SFT). dropped.jsonl and
    summary.json of the data say which were left out, and why."""
    language: Literal["python", "cpp"] | None = identity_where_set(None)
    """What the programs are written in, where tests by cases do not say it themselves. None: Python."""
    seed: int | None = identity(None)
    """Seed of generated and of shuffled rows; None takes the pipeline's seed."""

    @property
    def reads_tests(self) -> bool:
        """Whether demonstrations are verified by `columns.tests`, or show them."""
        return self.verify is not None or (self.template is not None and "{tests}" in self.template)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(value is not None for value in (self.task, self.file, self.hub)) != 1:
            raise ValueError("set exactly one of task, file and hub")
        if self.hub is None and (self.hub_config is not None or self.hub_files):
            raise ValueError("hub_config and hub_files: are for a dataset on the hub")
        if self.task is not None and self.columns.weight is not None:
            raise ValueError("columns.weight: is of a file or a hub dataset, and demonstrations of a task have none")
        if self.task is not None and (self.where or self.template is not None or self.verified):
            raise ValueError("where, template and verified: are for a file or a hub dataset, not for a task of ours")
        if self.task is not None and self.columns != Columns():
            raise ValueError("columns: are of a file or a hub dataset, and a task of ours has its own")
        if self.file is not None and not self.file.endswith(ENDINGS):
            raise ValueError(f"file: {Path(self.file).name} is none of {', '.join(ENDINGS)}; turn it into one of these")
        if self.file is not None and self.file.endswith(TEXT_ENDINGS):
            self._fits_a_table_of_text()
        if self.shuffle and self.rows is None:
            raise ValueError("shuffle: draws `rows` of the source at random; say how many")
        if self.template is not None and "{prompt}" not in self.template:
            raise ValueError("template: has no {prompt} in it")
        if self.template is not None and "{tests}" in self.template and self.columns.tests is None:
            raise ValueError("template: shows {tests}, and columns.tests names no column of them")
        if self.verify is not None and (self.columns.tests is None or self.task is not None or self.verified):
            raise ValueError("verify: needs columns.tests of a file or a hub dataset, and no `verified` beside it")
        if self.language is not None and self.columns.tests is None:
            raise ValueError("language: is that of programs with tests; name their column, columns.tests")
        if self.verified and self.columns.answer is None:
            raise ValueError("columns.answer: verified demonstrations need the column with the gold answer")
        return self

    def _fits_a_table_of_text(self) -> None:
        """Raise `ValueError` for what asks for anything but text."""
        if self.columns.weight is not None:
            raise ValueError("columns.weight: weights are numbers, and a .csv holds text alone; use .jsonl or .parquet")
        for column, value in self.where.items():
            if not isinstance(value, str):
                why = f"a .csv holds text alone, and {value!r} is none; put what the file has into quotation marks"
                raise ValueError(f"where.{column}: {why}")


class BenchmarkSource(StageSettings):
    """Which problems of a benchmark are materialised; the orchestrator fills this from the top-level `benchmarks:`."""

    name: str = identity()
    own: CustomProblems | None = identity(None)
    split: Literal["test", "dev"] = identity("test")
    where: dict[str, Asked] = identity({})
    """Only problems of which the benchmark notes these values (`meta` in its module), or some within these."""
    problems: int | None = identity(None, gt=0)
    """How many problems (the first ones; how many to make for a generated benchmark). None: all."""
    seed: int = identity(0)
    """Seed for generated problems."""


class DataSettings(StageSettings):
    """What the dataset artifact holds. `benchmarks` comes from the pipeline's top level and is not written by hand."""

    sft: list[SourceSettings] = identity([])
    rl: list[SourceSettings] = identity([])
    dev: list[SourceSettings] = identity([])
    """Problems that RL's checkpoint is chosen by (`grpo.dev_every`) and its start is judged by (`difficulty`): no
    training prompts, and no problems of the benchmarks."""
    benchmarks: list[BenchmarkSource] = identity([])
    packages: list[str] = identity_where_set([])
    """Filled from the pipeline's top-level `sandbox.packages`, where demonstrations are run; write it there."""
    on_overlap: Literal["refuse", "drop", "note"] = identity("refuse")
    """What happens to training prompts that are, or contain, problems of the benchmarks of this pipeline: the stage
    stops, they are left out, or they stay. Listed in summary.json whichever way."""
    overlap_ngram: int | None = identity(13, ge=5)
    """Words of a run that a training prompt and a problem of a benchmark of real data must not share (13 as in arXiv
    2005.14165). Runs that three problems of a benchmark share are its boilerplate and do not count. None: only equal
    prompts are looked for."""
    max_overlap_share: float = identity(0.0, ge=0, lt=1)
    """With on_overlap refuse: the share of training prompts up to which the hits are left out instead."""

    @model_validator(mode="after")
    def _prompts_are_no_demonstrations(self) -> Self:
        for name, sources in (("rl", self.rl), ("dev", self.dev)):
            for number, source in enumerate(sources):
                given = {
                    "verify": source.verify,
                    "verified": source.verified,
                    "turns": source.turns == "last",
                    "columns.weight": source.columns.weight,
                }
                if setting := next((setting for setting, value in given.items() if value), None):
                    raise ValueError(f"{name}.{number}.{setting}: is for demonstrations, and these rows are prompts")
        return self
