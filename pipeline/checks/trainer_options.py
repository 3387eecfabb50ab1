"""Checking `trainer:` mappings, which go to TRL as they are, with TRL's own config classes before anything starts."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core.digests import digest
from pipeline.core.errors import ConfigError
from pipeline.core.interpreters import Interpreter, code_of_a_moment, run_under
from pipeline.launch.environment import python_path
from pipeline.plan.code import code_of
from pipeline.plan.graph import Stage
from pipeline.plan.interpreters import Interpreters

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


def check_trainer_options(stages: Iterable[Stage], cache: Path, interpreters: Interpreters) -> None:
    """Check names, types and values, and that no option is one that this project sets itself.

    In a process of its own: importing TRL takes up to half a minute, which standard error says. What passed is
    remembered in `cache`, for the same mapping, sources and versions. Raises `ConfigError` for what is wrong.
    """
    for stage in stages:
        trainer = getattr(stage.settings, "trainer", None) if stage.kind.trainer_config else None
        if not trainer:
            continue
        versions = interpreters.versions(stage.name, stage.kind.libraries, exact=True)
        same = digest([stage.program, trainer, code_of(stage.kind, stage.settings), versions])
        passed = cache / f"trainer-options.{same}"
        if passed.exists():
            continue
        where = f"{stage.program}.trainer"
        print(f"{where}: TRL is asked, once for these options; that can take half a minute", file=sys.stderr)
        answer = _ask(stage, trainer, interpreters.of(stage.name))
        if answer.returncode == 3:
            message, fix = json.loads(answer.stdout.splitlines()[-1])
            raise ConfigError(message, where=where, fix=fix)
        if answer.returncode != 0:
            message = f"TRL cannot be imported: {answer.stderr.strip().splitlines()[-1]}"
            raise ConfigError(message, where=where, fix="Run `vcore doctor`.")
        with contextlib.suppress(OSError):  # a full disk, or no store yet: it is asked again next time
            passed.touch()


def _ask(stage: Stage, trainer: dict[str, Any], interpreter: Interpreter | None) -> subprocess.CompletedProcess[str]:
    program, asked = CHECK.format(program=stage.kind.program), json.dumps(trainer)
    if interpreter is None:
        environment = {**os.environ, "PYTHONPATH": python_path()}
        command = [sys.executable, "-P", "-c", program]
        return subprocess.run(command, input=asked, capture_output=True, text=True, env=environment)
    with code_of_a_moment() as code:
        return run_under(interpreter.python, ["-P", "-c", program], code, asked=asked)
