"""What `vcore doctor CONFIG` says of the interpreters that run a pipeline's stages."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.core.interpreters import Interpreter, code_of_a_moment, run_under
from pipeline.plan.graph import Stage, build_graph
from pipeline.plan.interpreters import Interpreters, imports_of

IMPORT = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
"""
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}


@dataclasses.dataclass(frozen=True)
class StagePython:
    """The interpreter of some stages of one kind."""

    stages: str
    """`generate.base, generate.sft`"""
    python: str
    own: bool
    """Whether it is the pipeline's own."""
    versions: dict[str, str]
    """Library -> exact version, `python` first."""
    wrong: str = ""
    """Why the stages cannot run under it; empty where they can."""
    advice: str = ""

    def __str__(self) -> str:
        """`/opt/new/bin/python: python 3.12.4, torch 2.14.0, vllm 0.32.0`"""
        found = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.python}{' (the own one)' if self.own else ''}: {found}"


def stage_pythons(file: Path, overrides: list[str]) -> Iterator[StagePython]:
    """Which interpreter runs each stage of a config, by kind, and what it has. What a stage imports under another one
    than the pipeline's own is really imported there, which takes up to half a minute each.

    Raises `ConfigError` for a config that is wrong, and for a path that is no Python.
    """
    config = load_config(file, overrides)
    interpreters, groups = Interpreters(config), dict[tuple[str, str], list[Stage]]()
    for stage in build_graph(config):
        interpreter = interpreters.of(stage.name)
        groups.setdefault((stage.program, interpreter.python if interpreter else ""), []).append(stage)
    for stages in groups.values():
        first, interpreter = stages[0], interpreters.of(stages[0].name)
        told = StagePython(
            ", ".join(stage.name for stage in stages),
            interpreter.python if interpreter else sys.executable,
            interpreter is None,
            interpreters.versions(first.name, first.kind.libraries, exact=True),
        )
        if interpreter is not None:
            try:
                interpreters.check_imports(stages)
                told = dataclasses.replace(told, wrong=_import_error(interpreter, first))
            except ConfigError as error:
                told = dataclasses.replace(told, wrong=error.message, advice=error.fix)
        yield told


def _import_error(interpreter: Interpreter, stage: Stage) -> str:
    """What an interpreter says that cannot import the code of a stage, or what that imports; empty where it can."""
    modules = [*sorted(imports_of(stage)), f"{stage.kind.program}.run"]
    with code_of_a_moment() as code:
        words = ["-P", "-c", IMPORT, json.dumps(modules)]
        done = run_under(interpreter.python, words, code, environment={**os.environ, **QUIET})
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"{interpreter.python} cannot import what it needs: {last}" if done.returncode else ""
