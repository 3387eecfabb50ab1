"""Checking `trainer:` mappings, which go to TRL as they are, against TRL's own config classes before anything starts.

A plan answers in a second, so it checks the names, which it reads in the sources of what is installed. A run checks everything.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache as remembered
from pathlib import Path
from typing import Any

from pipeline.config.schema import PipelineConfig
from pipeline.core.digests import digest
from pipeline.core.errors import ConfigError
from pipeline.plan.code import library_versions, source_digests
from pipeline.plan.planning import Planned

CLASSES = {"sft": "SFTConfig", "grpo": "GRPOConfig"}


def check_names(config: PipelineConfig, plan: list[Planned]) -> None:
    """Raise `ConfigError` for an option that TRL does not have, and name the nearest that it has. Imports nothing."""
    for program, trainer in _given(config, plan):
        known = option_names(program)
        unknown = [name for name in trainer if name not in known] if known else []
        if unknown:
            near = difflib.get_close_matches(unknown[0], sorted(known), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"trainer.{unknown[0]}: {CLASSES[program]} has no such option",
                where=f"{program}.trainer",
                fix=f"{hint}See the documentation of trl.{CLASSES[program]}.",
            )


@remembered
def option_names(program: str) -> frozenset[str]:
    """The fields of the program's config class and of those it is derived from, by their sources; none where these are not as they were.

    What cannot be read here (another version has its classes elsewhere, TRL is not installed) is left to the run.
    """
    chain = (
        ("trl", f"trainer/{program}_config.py", CLASSES[program]),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("transformers", "training_args.py", "TrainingArguments"),
    )
    names: set[str] = set()
    for package, module, name in chain:
        found = importlib.util.find_spec(package)  # finds a package without importing it
        file = Path((found.submodule_search_locations or [""])[0], module) if found is not None else Path()
        if not file.is_file():
            return frozenset()
        tree = ast.parse(file.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
        if not classes:
            return frozenset()
        for statement in classes[0].body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                names.add(statement.target.id)
    return frozenset(names)


def check_values(config: PipelineConfig, plan: list[Planned], cache: Path) -> None:
    """Check names, types and values, and that no option is one that this project sets itself, with TRL's own classes.

    In a process of its own: importing TRL takes up to half a minute. What was found good is remembered in `cache`, for the same mapping,
    sources and versions. Raises `ConfigError` for what is wrong.
    """
    for program, trainer in _given(config, plan):
        known = (
            cache
            / f"trainer-options.{digest([program, trainer, source_digests(program), library_versions(program, exact=True)])}"
        )
        if known.exists():
            continue
        code = (
            "import json, sys\n"
            f"from stages.{program}.run import check_trainer_options\n"
            "from stages.runtime import StageError\n"
            "try:\n    check_trainer_options(json.load(sys.stdin))\n"
            "except StageError as error:\n    json.dump([error.message, error.fix], sys.stdout); sys.exit(3)\n"
        )
        answer = subprocess.run(
            [sys.executable, "-P", "-c", code], input=json.dumps(trainer), capture_output=True, text=True
        )
        if answer.returncode == 3:
            message, fix = json.loads(answer.stdout.splitlines()[-1])
            raise ConfigError(message, where=f"{program}.trainer", fix=fix)
        if answer.returncode != 0:
            raise ConfigError(
                f"TRL cannot be imported: {answer.stderr.strip().splitlines()[-1]}",
                where=f"{program}.trainer",
                fix="Run `vcore doctor`.",
            )
        with contextlib.suppress(OSError):  # a full disk: it is asked again next time
            known.touch()


def _given(config: PipelineConfig, plan: list[Planned]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings that are given, of stages that have to run: (program, mapping)."""
    programs = {planned.stage.program for planned in plan if planned.state != "HIT"}
    for program, section in (("sft", config.sft), ("grpo", config.grpo)):
        if section is not None and program in programs and section.trainer:
            yield program, section.trainer
