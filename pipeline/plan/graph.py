"""Which stages a config has, in the order they run, and what each one takes from the others.

This is the place to look for what depends on what: one function, read top to bottom.
"""

import dataclasses
from typing import Any

from evaluation.harness.nearest import nearest
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from stages.base.settings import MAKE, BaseSettings
from stages.base.stage import STAGE as BASE
from stages.data.settings import BenchmarkSource
from stages.data.stage import STAGE as DATA
from stages.difficulty.stage import STAGE as DIFFICULTY
from stages.generate.settings import BenchmarkSettings, server_url
from stages.generate.stage import SERVED
from stages.generate.stage import STAGE as GENERATE
from stages.grpo.stage import STAGE as GRPO
from stages.harness.declaration import CustomCode, StageDeclaration
from stages.harness.settings import StageSettings
from stages.report.stage import STAGE as REPORT
from stages.score.settings import ScoreSettings
from stages.score.stage import STAGE as SCORE
from stages.sft.stage import STAGE as SFT

SERVED_MODEL = "served"
"""What a model that a server samples from is called among checkpoints."""


@dataclasses.dataclass(frozen=True)
class Input:
    """What a stage takes from another: the whole content of its artifact, or the part below `select`."""

    stage: str
    select: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stage:
    """One node of the graph: a kind of stage with its settings and inputs."""

    name: str
    """Unique in a pipeline: `generate.sft`."""
    kind: StageDeclaration[Any]
    settings: StageSettings
    inputs: dict[str, Input]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Facts for the program that are not settings and do not enter the key."""
    after: tuple[str, ...] = ()
    """Stages that have to be there before, although nothing is taken from them: the scores that a gate judges."""

    @property
    def custom_code(self) -> list[CustomCode]:
        """Functions and classes of the user's own that the settings name."""
        return list(self.kind.custom_code(self.settings))

    @property
    def program(self) -> str:
        """The kind of stage by name, the store's folder for its artifacts: `generate`."""
        return self.kind.name


def build_graph(config: PipelineConfig) -> list[Stage]:
    """The stages of a pipeline in running order: each checkpoint is evaluated as soon as it exists."""
    data = config.data.model_copy(
        update={
            "benchmarks": [
                BenchmarkSource(
                    name=b.name, own=b.own, split=b.split, where=b.where, problems=b.problems, seed=b.problem_seed
                )
                for b in config.benchmarks
            ],
            **(_sandboxed(config) if any(source.verify for source in config.data.sft) else {}),
        }
    )
    stages = [Stage("data", DATA, data, {})]

    if config.served:
        return [*stages, *(served := evaluate(config, SERVED_MODEL)), _report(config, [*stages, *served])]

    if config.model == MAKE:
        inputs = {"data": Input("data", ("sft.jsonl",))} if config.base.corpus == "train_data" else {}
        stages.append(Stage("base", BASE, config.base, inputs))
    else:  # how a model would be made does not matter for one that is given
        stages.append(
            Stage(
                "base",
                BASE,
                BaseSettings(source=config.model, revision=config.model_revision, chat=_needs_chat(config)),
                {},
            )
        )
    checkpoint = "base"
    evaluations = evaluate(config, checkpoint)

    if config.sft is not None:
        stages += evaluations
        inputs = {"data": Input("data", ("sft.jsonl",)), "model": Input(checkpoint, ("model",))}
        details = {"asked_with": _asked_with(config)}
        gate = _gate(config, stages)
        stages.append(Stage("sft", SFT, config.sft.model_copy(update=_dated(config)), inputs, details, gate))
        checkpoint = "sft"
        evaluations = evaluate(config, checkpoint)

    if config.grpo is not None:
        stages += evaluations
        gate = _gate(config, stages)
        prompts = Input("data", ("rl.jsonl",))
        if config.difficulty is not None:
            stages += _choose_prompts(config, checkpoint, gate)
            prompts = Input("difficulty", ("rl.jsonl",))
        inputs = {"data": prompts, "model": Input(checkpoint, ("model",))}
        if config.grpo.dev_every is not None:
            inputs["dev"] = Input("data", ("dev.jsonl",))
        if config.grpo.lora_start == "sft_adapter":
            inputs |= {"adapter": Input("sft", ("adapter",)), "below": Input("base", ("model",))}
        grpo = config.grpo.model_copy(update=_dated(config) | _sandboxed(config))
        stages.append(Stage("grpo", GRPO, grpo, inputs, after=gate))
        checkpoint = "grpo"
        evaluations = evaluate(config, checkpoint)

    stages += evaluations
    return [*stages, _report(config, stages)]


def _report(config: PipelineConfig, stages: list[Stage]) -> Stage:
    settings = config.report.model_copy(update={"title": config.report.title or config.name})
    return Stage("report", REPORT, settings, {stage.name: Input(stage.name) for stage in stages})


def _needs_chat(config: PipelineConfig) -> bool:
    return (
        config.sft is not None
        or config.grpo is not None
        or any(benchmark.prompt == "chat" for benchmark in config.benchmarks)
    )


def _dated(config: PipelineConfig) -> dict[str, Any]:
    """The setting of all stages that render conversations."""
    return {"template_date": config.template_date}


def _sandboxed(config: PipelineConfig) -> dict[str, Any]:
    """The setting of all stages that run programs that nobody has read."""
    return {"packages": config.sandbox.packages}


def _scoring(config: PipelineConfig) -> ScoreSettings:
    return config.score.model_copy(update=_sandboxed(config))


def _asked_with(config: PipelineConfig) -> dict[str, dict[str, Any]]:
    """Who asks the trained model -> the system prompt and the thinking it asks with."""
    chats = [benchmark for benchmark in config.benchmarks if benchmark.prompt == "chat"]
    asking = {f"evaluation ({benchmark.name})": config.generate.prompting(benchmark) for benchmark in chats}
    if config.grpo is not None:
        asking["grpo"] = config.grpo.model_dump()
    return {who: {name: said[name] for name in ("system_prompt", "enable_thinking")} for who, said in asking.items()}


def evaluate(config: PipelineConfig, checkpoint: str, more: str = "") -> list[Stage]:
    """Sampling and grading of one checkpoint: one engine load serves all benchmarks, and a fixed grader rescores
    without it. With `more` behind their names."""
    benchmarks = Input("data", ("benchmarks",))
    settings = config.generate.model_copy(update={"benchmarks": config.benchmarks, **_dated(config)})
    inputs, kind = {"data": benchmarks, "model": Input(checkpoint, ("model",))}, GENERATE
    if settings.server is not None:
        server = settings.server.model_copy(update={"url": server_url(config.model)})
        settings = settings.model_copy(update={"server": server})
        inputs, kind = {"data": benchmarks}, SERVED
    generate = Stage(f"generate.{checkpoint}{more}", kind, settings, inputs, {"checkpoint": checkpoint})
    score = Stage(
        f"score.{checkpoint}{more}",
        SCORE,
        _scoring(config),
        {"data": benchmarks, "generations": Input(generate.name)},
        {"checkpoint": checkpoint},
    )
    return [generate, score]


def _gate(config: PipelineConfig, stages: list[Stage]) -> tuple[str, ...]:
    """The scores that the gate judges before a training that follows these stages."""
    judged = {f"score.{check.checkpoint}" for check in config.gate.checks if check.tier == "critical"}
    compared = {f"score.{check.against}" for check in config.gate.checks if f"score.{check.checkpoint}" in judged}
    names = [stage.name for stage in stages]
    return tuple(name for name in names if name in judged | compared) if judged & set(names) else ()


def _choose_prompts(config: PipelineConfig, checkpoint: str, gate: tuple[str, ...]) -> list[Stage]:
    """RL's prompts, sampled from the checkpoint it starts from as RL samples, and the choice among them.

    Args:
        gate: the scores that are judged before.
    """
    assert config.grpo is not None
    assert config.difficulty is not None
    sets = ("rl", "dev") if config.data.dev else ("rl",)
    data = Input("data", tuple(f"{name}.jsonl" for name in sets))
    sampled = [
        BenchmarkSettings(
            name=name,
            samples=config.difficulty.samples,
            temperature=config.grpo.temperature,
            top_p=config.grpo.top_p,
            top_k=config.grpo.top_k,
            max_new_tokens=config.grpo.max_completion_length,
            system_prompt=config.grpo.system_prompt,
            enable_thinking=config.grpo.enable_thinking,
        )
        for name in sets
    ]
    settings = config.generate.model_copy(
        update={
            "benchmarks": sampled,
            "system_prompt": None,
            "enable_thinking": None,
            "thinking_budget": None,  # RL has none
            **_dated(config),
        }
    )
    inputs = {"data": data, "model": Input(checkpoint, ("model",))}
    generate = Stage("generate.prompts", GENERATE, settings, inputs, after=gate)
    difficulty = config.difficulty.model_copy(update={"scoring": _scoring(config)})
    return [
        generate,
        Stage("difficulty", DIFFICULTY, difficulty, {"data": data, "generations": Input(generate.name)}),
    ]


def select_stages(stages: list[Stage], name: str) -> list[str]:
    """Names of the stages a word on the command line means: a stage, or all stages of one program (`score`)."""
    return [s.name for s in stages if name in (s.name, s.program)]


def check_stage(stages: list[Stage], name: str, where: str) -> None:
    """Raise `ConfigError` about the place `where` unless the name is that of a stage, or of all stages of a program."""
    known = [word for stage in stages for word in (stage.name, stage.program)]
    if name not in known:
        raise ConfigError(f"this pipeline has no stage {name!r}{nearest(name, known)}", where=where)


def upstream(stages: list[Stage], names: set[str]) -> set[str]:
    """The named stages and everything they take from or wait for, directly or not."""
    found = set(names)
    for stage in reversed(stages):
        if stage.name in found:
            found |= {source.stage for source in stage.inputs.values()} | set(stage.after)
    return found


def downstream(stages: list[Stage], names: set[str]) -> set[str]:
    """The named stages and everything that takes from them, directly or not."""
    found = set(names)
    for stage in stages:  # running order, so one pass is enough
        if any(i.stage in found for i in stage.inputs.values()):
            found.add(stage.name)
    return found
