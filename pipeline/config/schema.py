"""One YAML per pipeline, parsed into strict models. Every error names file, line, what is wrong and what to do."""

from __future__ import annotations

import os
import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from evaluation.benchmarks import get, names
from evaluation.harness.nearest import nearest
from pipeline.config.execution import ExecutionSettings
from pipeline.config.export import Exports
from pipeline.config.gate import GateSettings, check_gate, check_more_samples
from pipeline.config.yaml_file import Document, Location, check_path, read
from pipeline.core.errors import ConfigError
from stages.base.settings import MAKE, BaseSettings
from stages.data.settings import DataSettings, SourceSettings
from stages.difficulty.settings import DifficultySettings
from stages.generate.settings import PROMPT_SETS, BenchmarkSettings, GenerateSettings, is_address, server_url
from stages.grpo.settings import GrpoSettings
from stages.harness.settings import StageSettings, TemplateDate, execution, identity, identity_where_set
from stages.report.settings import ReportSettings
from stages.score.settings import ScoreSettings
from stages.sft.settings import SftSettings

MOST_GENERATED = 1_000_000
"""Rows that a generated task is asked for: it is searched for distinct ones until it has them all."""
OWN_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*$")


class SandboxSettings(StageSettings):
    """What programs may use beside the standard library."""

    packages: list[str] = identity_where_set([])
    """Distributions of this environment that programs may import, with what these need, such as [numpy]."""


class PipelineConfig(StageSettings):
    """A whole pipeline. A stage whose section is absent (`sft`, `grpo`) is not run."""

    name: str = execution(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: int = identity(ge=0, lt=2**32)
    model: str = identity(MAKE, min_length=1)
    """`make`: the base stage trains a small model from scratch; otherwise a local checkpoint folder, a hub id, or the
    address of a server (http://...), which is evaluated and not trained."""
    model_revision: str = identity("main")
    data_dir: str | None = execution(None)
    """Folder with local copies of datasets (or VCORE_DATA_DIR); without one, datasets come from the hub."""
    home: str = execution(".vcore")
    """Folder of the artifact store and the run records (or VCORE_HOME)."""
    template_date: TemplateDate = identity(None)
    """The date that chat templates write where they ask for today's, in SFT, RL and evaluation alike, such as
    2025-01-31; templates that take it as `date_string` get it, too. None: their clock stands at 2024-07-26."""
    benchmarks: list[BenchmarkSettings] = identity(min_length=1)
    benchmark_revisions: dict[str, str] = execution({})
    """Benchmark -> hub revision of its problems, instead of the benchmark's own; the commit it stands for enters the
    key of the data."""
    data: DataSettings = identity(DataSettings())
    base: BaseSettings = identity(BaseSettings())
    sft: SftSettings | None = identity(None)
    difficulty: DifficultySettings | None = identity(None)
    """Where it is set, RL starts from the prompts that its checkpoint solves sometimes."""
    grpo: GrpoSettings | None = identity(None)
    generate: GenerateSettings = identity(GenerateSettings())
    score: ScoreSettings = identity(ScoreSettings())
    sandbox: SandboxSettings = identity_where_set(SandboxSettings())
    """What programs may use, in scoring, RL's reward, the choice of prompts and the check of demonstrations alike."""
    report: ReportSettings = identity(ReportSettings())
    export: Exports = execution([])
    """The trackers that a run goes to when it has ended: a name, a mapping, or a list (docs/export.md)."""
    gate: GateSettings = Field(GateSettings(), json_schema_extra={"role": "execution"})
    execution: ExecutionSettings = Field(ExecutionSettings(), json_schema_extra={"role": "execution"})

    @model_validator(mode="after")
    def _consistent(self) -> PipelineConfig:
        _each_benchmark_once(self)
        for section, field in (("data", "benchmarks"), ("generate", "benchmarks")):
            if getattr(getattr(self, section), field):
                raise ValueError(f"{section}.{field} is filled from the top-level benchmarks: list; write it there")
        for section in ("sft", "grpo", "generate"):
            if getattr(getattr(self, section), "template_date", None) is not None:
                raise ValueError(f"{section}.template_date is filled from the top-level template_date; write it there")
        for section, settings in (("data", self.data), ("score", self.score), ("grpo", self.grpo)):
            if settings is not None and settings.packages:
                raise ValueError(f"{section}.packages is filled from the top-level sandbox.packages; write it there")
        if self.sft is not None and not self.data.sft:
            raise ValueError("there is an sft section, but data.sft names no source of demonstrations")
        if self.grpo is not None and not self.data.rl:
            raise ValueError("there is a grpo section, but data.rl names no source of prompts")
        for where, sources in (("sft", self.data.sft), ("rl", self.data.rl), ("dev", self.data.dev)):
            for index, source in enumerate(sources):
                if source.task is not None:
                    _task_can_train(f"data.{where}.{index}", source, demonstrations=where == "sft")
                elif where != "sft" and source.columns.answer is None and source.columns.tests is None:
                    why = "a source of problems needs the column with the gold answer"
                    raise ValueError(f"data.{where}.{index}.columns.answer: {why}")
                elif where == "sft" and source.columns.completion is None:
                    raise ValueError(
                        f"data.sft.{index}.columns.completion: an SFT source needs the column with the demonstration"
                    )
                elif where == "sft" and source.columns.tests is not None and not source.reads_tests:
                    why = "no demonstration is tested; set verify: tests beside columns, or leave it out"
                    raise ValueError(f"data.sft.{index}.columns.tests: {why}")
        for index, benchmark in enumerate(self.benchmarks):
            budget, limit = self.generate.budget(benchmark), benchmark.max_new_tokens
            if budget is not None and budget >= limit:
                room = f"{limit} leaves no room for an answer after generate.thinking_budget {budget}"
                raise ValueError(f"benchmarks.{index}.max_new_tokens: {room}")
        if self.model == MAKE and self.model_revision != "main":
            raise ValueError("model_revision: is for models of the hub, and this one is made; leave it out")
        if self.model_revision != "main" and os.path.exists(os.path.expanduser(self.model)):
            raise ValueError(f"model_revision: is for models of the hub, and {self.model} is here; leave it out")
        _rl_fits_together(self)
        _served_fits_together(self)
        sizes = {benchmark.name: benchmark.problems for benchmark in self.benchmarks}
        check_gate(self.gate, sizes, ["base", *(name for name in ("sft", "grpo") if getattr(self, name) is not None)])
        check_more_samples(self.gate, self.benchmarks, served=self.served)
        return self

    @property
    def served(self) -> bool:
        """Whether the model is that of a server."""
        return is_address(self.model)

    @property
    def tags(self) -> list[str]:
        """What runs are filtered by in Prefect's UI."""
        model = self.generate.server.model if self.generate.server is not None else self.model
        return [f"config:{self.name}", f"seed:{self.seed}", f"model:{model.rstrip('/').rpartition('/')[2]}"]

    @property
    def home_folder(self) -> Path:
        return Path(self.home).expanduser()

    @property
    def data_folder(self) -> Path | None:
        return Path(self.data_dir).expanduser() if self.data_dir is not None else None


def load_config(path: Path, overrides: list[str] | None = None) -> PipelineConfig:
    """Read, merge and validate. Raises `ConfigError` with every problem found, one a line."""
    document = read(path, overrides)
    if "matrix" in document.values:
        raise ConfigError(
            "this is a sweep, with a matrix of settings", where=str(path), fix=f"vcore sweep {path} --plan"
        )
    for name, variable in (("data_dir", "VCORE_DATA_DIR"), ("home", "VCORE_HOME")):
        if document.values.get(name) is None and os.environ.get(variable):
            document.values[name] = os.environ[variable]
            document.places[(name,)] = variable
    for name in ("home", "data_dir", "model"):
        check_path(document, name)
    try:
        return PipelineConfig.model_validate(document.values)
    except ValidationError as error:
        problems = [_explain(detail, document) for detail in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def _each_benchmark_once(config: PipelineConfig) -> None:
    listed = [benchmark.name for benchmark in config.benchmarks]
    for index, name in enumerate(listed):
        if name in listed[:index]:
            raise ValueError(f"benchmarks.{index}.name: benchmark {name!r} is listed twice")
        made = name in names() and get(name).generate is not None
        if config.benchmarks[index].where and (made or config.benchmarks[index].own is not None or name in PROMPT_SETS):
            why = "is for benchmarks of real data that are read by name; this one has the problems that you choose"
            raise ValueError(f"benchmarks.{index}.where: {why}")
        if config.benchmarks[index].own is not None:
            if name in names() or name in PROMPT_SETS or not OWN_NAME.match(name):
                why = "is taken, or no name (letters, digits, _ . -), for a benchmark of yours"
                raise ValueError(f"benchmarks.{index}.name: {name!r} {why}")
            continue
        if name not in names():
            raise ValueError(f"benchmarks.{index}.name: there is no benchmark {name!r}{nearest(name, names())}")
        benchmark = get(name)
        if config.benchmarks[index].split not in benchmark.splits:
            raise ValueError(f"benchmarks.{index}.split: {name} has the splits {', '.join(benchmark.splits)}")
        if benchmark.generate is not None and not 0 < (config.benchmarks[index].problems or 0) <= MOST_GENERATED:
            how_many = f"say how many problems to make, at most {MOST_GENERATED:,}"
            raise ValueError(f"benchmarks.{index}.problems: {name} is generated; {how_many}")
    on_hub = [b.name for b in config.benchmarks if b.own is None and get(b.name).sources]
    for name in config.benchmark_revisions:
        if name not in on_hub:
            why = f"is no benchmark of this pipeline that comes from the hub{nearest(name, on_hub)}"
            raise ValueError(f"benchmark_revisions.{name}: {why}")


def _rl_fits_together(config: PipelineConfig) -> None:
    grpo = config.grpo
    if grpo is None:
        if config.difficulty is not None:
            raise ValueError("difficulty: chooses prompts for RL, and there is no grpo section")
        if config.data.dev:
            raise ValueError("data.dev: is for RL, and there is no grpo section")
        return
    if config.difficulty is not None and config.difficulty.scoring != ScoreSettings():
        raise ValueError("difficulty.scoring is filled from the top-level score: section; write it there")
    if grpo.dev_every is not None and not config.data.dev:
        raise ValueError("grpo.dev_every: there are no problems to choose a checkpoint by; name a source in data.dev")
    if config.data.dev and grpo.dev_every is None and config.difficulty is None:
        raise ValueError("data.dev: nothing uses these problems; set grpo.dev_every, or add a difficulty section")
    if grpo.lora_start == "sft_adapter":
        if config.sft is None or config.sft.lora is None:
            raise ValueError("grpo.lora_start: sft_adapter continues the adapter of SFT, and sft.lora is not set")
        if config.sft.lora != grpo.lora:
            raise ValueError("grpo.lora: an adapter that is continued has the shape it has; write the same as sft.lora")


def _served_fits_together(config: PipelineConfig) -> None:
    server, engine = config.generate.server, config.generate.engine
    if not config.served:
        if engine == "openai":
            raise ValueError("model: generate.engine openai asks a server; give its address, http://HOST:PORT/v1")
        return
    if server is None:
        why = "the model is the address of a server; set engine: openai and server: {model: NAME}"
        raise ValueError(f"generate.engine: {why}")
    if server.url:
        raise ValueError("generate.server.url is filled from the top-level model; write it there")
    try:
        server_url(config.model)
    except ValueError as error:
        raise ValueError(f"model: {error}") from error
    for name in ("sft", "grpo"):
        if getattr(config, name) is not None:
            raise ValueError(f"{name}: the model of a server cannot be trained; name a checkpoint")
    if config.model_revision != "main":
        raise ValueError("model_revision: is for models of the hub; a server has the model that it was started with")
    if config.template_date is not None:
        raise ValueError("template_date: the server renders its prompts, with its own clock; leave it out")


def _task_can_train(where: str, source: SourceSettings, *, demonstrations: bool) -> None:
    name = source.task
    assert name is not None
    if name not in names():
        raise ValueError(f"{where}.task: there is no task {name!r}{nearest(name, names())}")
    task = get(name)
    if source.split not in task.splits or source.split == "test":
        raise ValueError(f"{where}.task: {name} has no {source.split!r} split to train on")
    if demonstrations and task.demonstrate is None:
        raise ValueError(f"{where}.task: {name} has no demonstrations for SFT")
    if task.generate is None:
        return
    if source.rows is None or source.rows > MOST_GENERATED:
        raise ValueError(f"{where}.rows: {name} is generated; say how many rows to make, at most {MOST_GENERATED:,}")
    if source.shuffle:
        raise ValueError(f"{where}.shuffle: {name} is generated, its rows are random; another seed makes others")


_FORMS = {
    "name": "a name is made of letters, digits and . _ -, and begins with a letter or a digit",
    "notify": "give type and name of a Prefect notification block, such as slack-webhook/my-channel",
    "project": "a project's name has at most 128 characters, and none of / \\ # ? % :",
    "api_key_env": "give the name of an environment variable, such as OPENAI_API_KEY",
}
"""Settings with a pattern -> what it says."""


def _explain(detail: ErrorDetails, document: Document) -> str:
    """One pydantic error as `place: setting: what is wrong`."""
    path = _yaml_path(detail["loc"], document.values, keep_last=detail["type"] == "missing")
    message, name = detail["msg"], ".".join(map(str, path))
    if detail["type"] == "extra_forbidden":
        fields = _fields_at(PipelineConfig, path[:-1], document.values)
        message = f"unknown setting{nearest(str(path[-1]), fields)}"
    elif detail["type"] == "missing":
        message = "this setting is required"
    elif detail["type"] in ("union_tag_invalid", "union_tag_not_found"):  # one of several forms, told apart by a name
        name = f"{name}.{detail['ctx']['discriminator'].strip(chr(39))}"
        expected = re.findall(r"'([^']+)'", detail["ctx"].get("expected_tags", ""))
        tag = detail["ctx"].get("tag")
        message = "this setting is required" if tag is None else f"there is no {tag!r}{nearest(tag, expected)}"
    elif detail["type"] == "value_error":
        message = str(detail["ctx"]["error"]) if "ctx" in detail else message
        first = message.partition(":")[0]
        if " " not in first and (
            "." in first or first in _fields_at(PipelineConfig, path, document.values)
        ):  # it names the setting
            inner: Location = tuple(int(p) if p.isdigit() else p for p in first.split("."))
            path, name, message = (
                (*path, *inner),
                ".".join(map(str, (*path, *inner))),
                message.partition(":")[2].strip(),
            )
    elif "input" in detail and not isinstance(detail["input"], dict | list):
        if detail["type"] == "string_pattern_mismatch":
            message = _FORMS.get(str(path[-1]), message)
        message = f"{message} (found {detail['input']!r})"
    place = document.place(path)
    return ": ".join(part for part in (place, name, message) if part)


def _yaml_path(loc: tuple[str | int, ...], values: Any, *, keep_last: bool) -> Location:
    """Pydantic's location without what only its unions add (tags, type names), so that it names a place in the YAML."""
    path: list[str | int] = []
    node = values
    for index, part in enumerate(loc):
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        )
        if inside:
            path.append(part)
            node = node[part]
        elif keep_last and index == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _fields_at(model: Any, path: Location, values: Any) -> set[str]:
    """Names of the settings that exist at a place; of a union of models, those of the members its tag selects."""
    if not path:
        return {field for member in _models(model, values) for field in member.model_fields}
    found: set[str] = set()
    inside: Any = values[path[0]] if isinstance(values, dict | list) else None  # type: ignore[index]
    if isinstance(path[0], int):
        return _fields_at(model, path[1:], inside)
    if typing.get_origin(model) is dict:  # its keys are names: each has the same settings
        return _fields_at(typing.get_args(model)[1], path[1:], inside)
    for member in _models(model, values):
        if path[0] in member.model_fields:
            found |= _fields_at(member.model_fields[path[0]].annotation, path[1:], inside)
    return found


def _models(annotation: Any, value: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType, list, typing.Annotated):
        members = [model for argument in arguments for model in _models(argument, value)]
        tagged = [
            m
            for m in members
            for tag in ("name", "to")
            if isinstance(value, dict) and tag in m.model_fields and m.model_fields[tag].default == value.get(tag)
        ]
        return tagged or members
    return []
