"""Measurements of this machine, in processes of their own: pipeline/ imports nothing that computes."""

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pipeline.config.execution import entry_for
from pipeline.config.schema import PipelineConfig
from pipeline.core.interpreters import environment_of, find_python, link_code
from pipeline.launch.environment import stage_environment
from pipeline.launch.machine import cores
from pipeline.launch.process import Launch, run_process
from pipeline.plan.graph import build_graph
from stages.harness.documents import Machine, Spec, StageResult

GRACE_S = 5.0


@dataclasses.dataclass(frozen=True)
class Seconds:
    """A time on a machine as busy as it was while it was measured, and on a quiet one."""

    now: float = 0.0
    quiet: float = 0.0

    def __add__(self, other: Self) -> "Seconds":
        return Seconds(self.now + other.now, self.quiet + other.quiet)

    def __mul__(self, count: float) -> "Seconds":
        return Seconds(self.now * count, self.quiet * count)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one program measured: times by name, memory in GiB, and the share of the cores that others took."""

    times: dict[str, Seconds]
    numbers: dict[str, float]
    peak_gib: float


Measure = Callable[[str, dict[str, Any], dict[str, Any]], Measured]
"""Takes a program, the kind of work and the size of it; measures each kind once, at the first size."""


def measuring(config: PipelineConfig, described: Any, say: Callable[[str], None]) -> Measure:
    """A `Measure` of the model that transformers' config `described` describes. It raises `StageFailed` where a program
    fails. `say` is told what is being measured."""
    done: dict[tuple[str, str], Measured] = {}

    def measure(program: str, kind: dict[str, Any], size: dict[str, Any]) -> Measured:
        key = (program, repr(kind))
        if key not in done:
            say(f"measuring: {program.split('.')[1]} ...")
            with tempfile.TemporaryDirectory(prefix="vcore-speed-") as folder:
                described.save_pretrained(Path(folder) / "config")
                done[key] = _read(_run(program, kind | size, Path(folder), config))
        return done[key]

    return measure


def _run(program: str, settings: dict[str, Any], folder: Path, config: PipelineConfig) -> StageResult:
    threads = config.execution.threads or cores()
    spec = Spec(
        stage=program,
        settings=settings,
        inputs={"model": str(folder / "config")},
        seed=config.seed,
        machine=Machine.model_validate({"device": "cpu", "threads": threads}),
    )
    environment, python = stage_environment("cpu", threads, hub=False), _python(program, config)
    if python is not None:
        environment = environment_of(python, link_code(folder), environment)
    launch = Launch(
        stage=program,
        program=program,
        work=folder / "work",
        environment=environment,
        python=python or sys.executable,
        locks=(),
        grace_s=GRACE_S,
    )
    return run_process(launch, spec, lambda event: None)


def _python(program: str, config: PipelineConfig) -> str | None:
    """The interpreter that the config names for the first stage of the kind that a program measures; None for the
    pipeline's own. What trainings share is measured as the first of them."""
    kind = program.split(".")[1]
    if kind == "training":
        kind = "sft" if config.sft is not None else "grpo"
    first = next((stage.name for stage in build_graph(config) if stage.program == kind), kind)
    entry = entry_for(first, config.execution.python)
    return find_python(config.execution.python[entry], f"execution.python.{entry}") if entry is not None else None


def _read(result: StageResult) -> Measured:
    times = {name: Seconds(*value) for name, value in result.metrics.items() if isinstance(value, list)}
    numbers = {name: value for name, value in result.metrics.items() if not isinstance(value, list)}
    return Measured(times, numbers, result.peak_memory_gib)
