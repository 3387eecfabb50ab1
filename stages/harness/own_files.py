"""Settings of files of a user's own: which column holds what, and a benchmark that is such a file."""

from typing import Literal, Self

from pydantic import model_validator

from stages.harness.settings import StageSettings, execution, identity, identity_where_set


class AskedColumns(StageSettings):
    """Names of the columns with what is asked and what is right, in a dataset that is not one of our tasks.

    `reward_model.ground_truth` is a value inside an object, `generations.0` an item of a list.
    """

    prompt: str = identity("prompt")
    """What is asked: text, or a list of messages that ends with the user's."""
    messages: str | None = identity(None)
    """Whole conversations, in place of `prompt`: a list of messages with role and content, or from and value. Where
    the usual columns are not there, `messages`, `conversations` or `conversation` is found."""
    system: str | None = identity(None)
    """The system message, where a column of its own holds it; empty in rows that have none."""
    answer: str | None = identity(None)
    """Column with the gold answer: for maths the answer, for code the reference program, which tests by cases do not
    need."""
    tests: str | list[str] | None = identity(None)
    """Column with the tests of a program: an object, a list of asserts, or cases as the usual sets hold them
    (docs/own.md). Cases of several columns, [public_tests, private_tests], are put together."""
    setup: str | None = identity(None)
    """Column with code that runs before a list of asserts: text, or a list of lines."""

    def named(self) -> list[tuple[str, str]]:
        """(setting, column) of each column that the settings name, of several for one setting each."""
        values = [(role, getattr(self, role)) for role in type(self).model_fields]
        return [(role, one) for role, value in values for one in (value if isinstance(value, list) else [value]) if one]

    @model_validator(mode="after")
    def _names_are_columns(self) -> Self:
        for role in type(self).model_fields:
            named = getattr(self, role)
            if named == [] or any(
                name is not None and not name.strip() for name in (named if isinstance(named, list) else [named])
            ):
                raise ValueError(f"{role}: names no column; name one, or leave it out")
        if self.setup is not None and self.tests is None:
            raise ValueError("setup: runs before the asserts of a column of tests; name that too")
        return self


class BenchmarkColumns(AskedColumns):
    """Names of the columns of a benchmark's file, where they are not `prompt`, `gold`, `tests`, `id`, `beginning`."""

    answer: str = identity("gold")
    """Column with the gold answer: for maths the answer, for choice its letter, for code the reference program."""
    id: str | None = identity(None)
    """What problems are called by. None: `id`, and the row's number where there is none."""
    beginning: str | None = identity(None)
    """Column with the beginning of a program that base models continue (`prompt: completion`). None: `beginning`,
    where it is there."""

    @model_validator(mode="after")
    def _one_column_for_each(self) -> Self:
        if self.messages is not None and self.prompt != "prompt":
            raise ValueError("messages: holds whole conversations; leave out prompt")
        taken: dict[str, str] = {}
        asked = [(role, column) for role, column in self.named() if role != "prompt" or self.messages is None]
        for role, column in asked:
            if column in taken:
                raise ValueError(f"{role}: is the column {column!r}, which {taken[column]} is too; name another")
            taken[column] = role
        return self


class CustomProblems(StageSettings):
    """A benchmark of your own: a local file of problems. See docs/own.md."""

    file: str = execution()
    """A .jsonl, .json, .csv (each also with .gz) or .parquet file. Its path is execution: its content enters the key of
    the data."""
    kind: Literal["maths", "code", "choice"] = identity("maths")
    """How answers are graded."""
    template: str | None = identity(None)
    """What the user message says, with {prompt} for the problem. None: the paper's instruction for maths, else the
    prompt alone."""
    columns: BenchmarkColumns = identity_where_set(BenchmarkColumns())
    """Which of the file's columns hold what, by the names that training data has for them."""

    @model_validator(mode="after")
    def _template_has_a_place(self) -> Self:
        if self.template is not None and "{prompt}" not in self.template:
            raise ValueError("template: has no {prompt} in it")
        return self

    @model_validator(mode="after")
    def _programs_have_tests(self) -> Self:
        for role in ("tests", "setup", "beginning") if self.kind != "code" else ():
            if getattr(self.columns, role) is not None:
                raise ValueError(f"columns.{role}: is for kind: code, and the kind is {self.kind}")
        return self
