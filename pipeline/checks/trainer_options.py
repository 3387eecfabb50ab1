"""Checking `trainer:` mappings, which go to TRL as they are, against TRL's own config classes before anything starts.

A plan answers in a second, so it checks names only, by the sources of what is installed. A run checks everything.
"""

import ast
import contextlib
import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evaluation.harness.nearest import nearest_name
from pipeline.core.digests import digest
from pipeline.core.errors import ConfigError
from pipeline.plan.code import code_of, library_versions
from pipeline.plan.graph import Stage
from pipeline.plan.planning import Planned


def check_names(plan: Iterable[Planned]) -> None:
    """Raise `ConfigError` for an option that TRL does not have, and name the nearest that it has. Imports nothing."""
    for stage, trainer in _given(plan):
        config_class = stage.kind.trainer_config
        names = option_names(config_class)
        unknown = [name for name in trainer if name not in names] if names else []
        if unknown:
            near = nearest_name(unknown[0], names, cutoff=0.5)
            hint = f"Did you mean {near}? " if near is not None else ""
            raise ConfigError(
                f"trainer.{unknown[0]}: {config_class} has no such option",
                where=f"{stage.program}.trainer",
                fix=f"{hint}See the documentation of trl.{config_class}.",
            )


@functools.cache
def option_names(config_class: str) -> frozenset[str]:
    """The fields of a config class of TRL's and of its bases, by their sources; none where these have moved.

    What cannot be read here (another version has its classes elsewhere, TRL is not installed) is left to the run.
    """
    chain = (
        ("trl", f"trainer/{config_class.removesuffix('Config').lower()}_config.py", config_class),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("transformers", "training_args.py", "TrainingArguments"),
    )
    names: set[str] = set()
    for package, module, name in chain:
        spec = importlib.util.find_spec(package)  # finds a package without importing it
        file = Path((spec.submodule_search_locations or [""])[0], module) if spec is not None else Path()
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
        fields = next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
        if fields is None:
            return frozenset()
        names |= {f.target.id for f in fields if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)}
    return frozenset(names)


CHECK = """
import json, sys
from stages.harness.context import StageError
from {program}.run import check_trainer_options
try:
    check_trainer_options(json.load(sys.stdin))
except StageError as error:
    json.dump([error.message, error.fix], sys.stdout)
    sys.exit(3)
"""


def check_values(plan: Iterable[Planned], cache: Path) -> None:
    """Check names, types and values, and that no option is one that this project sets itself, with TRL's own classes.

    In a process of its own: importing TRL takes up to half a minute. What passed is remembered in `cache`, for the same
    mapping, sources and versions. Raises `ConfigError` for what is wrong.
    """
    for stage, trainer in _given(plan):
        versions = library_versions(stage.kind.libraries, exact=True)
        same = digest([stage.program, trainer, code_of(stage.kind, stage.settings), versions])
        passed = cache / f"trainer-options.{same}"
        if passed.exists():
            continue
        where = f"{stage.program}.trainer"
        command = [sys.executable, "-P", "-c", CHECK.format(program=stage.kind.program)]
        answer = subprocess.run(command, input=json.dumps(trainer), capture_output=True, text=True)
        if answer.returncode == 3:
            message, fix = json.loads(answer.stdout.splitlines()[-1])
            raise ConfigError(message, where=where, fix=fix)
        if answer.returncode != 0:
            message = f"TRL cannot be imported: {answer.stderr.strip().splitlines()[-1]}"
            raise ConfigError(message, where=where, fix="Run `vcore doctor`.")
        with contextlib.suppress(OSError):  # a full disk: it is asked again next time
            passed.touch()


def _given(plan: Iterable[Planned]) -> Iterator[tuple[Stage, dict[str, Any]]]:
    """The stages that have to run and whose settings hold options for TRL, with these."""
    for stage in (planned.stage for planned in plan if planned.state != "HIT"):
        trainer = getattr(stage.settings, "trainer", None) if stage.kind.trainer_config else None
        if trainer:
            yield stage, trainer
