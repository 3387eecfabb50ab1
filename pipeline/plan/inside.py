"""Questions that only another interpreter can answer, put to it: `PYTHON -P -m pipeline.plan.inside QUESTION`.

What a custom file imports, and which packages the sandbox shows, depends on what is installed beside the interpreter
that runs the stage. Both are looked up without loading any of it.
"""

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.interpreters import PROBE_SECONDS, Interpreter, code_of_a_moment, run_under
from pipeline.plan.user_code import UserCode, user_code
from stages.harness.declaration import CustomCode

REFUSED = 3
"""Exit code of an answer that is an error of the config."""


def user_code_in(interpreter: Interpreter, code: CustomCode, libraries: Iterable[str]) -> UserCode:
    """As `user_code`, with what is installed beside another interpreter. Raises `ConfigError` as that does."""
    told = _ask(
        interpreter, "user_code", {"code": dataclasses.asdict(code), "libraries": list(libraries)}, code.setting
    )
    return UserCode(
        modules={name: Path(path) for name, path in told["modules"].items()},
        reads={name: Path(path) for name, path in told["reads"].items()},
        ours=frozenset(told["ours"]),
        distributions=frozenset(told["distributions"]),
        silent=[Path(path) for path in told["silent"]],
        absent=told["absent"],
    )


@functools.cache
def packages_in(interpreter: Interpreter, names: tuple[str, ...]) -> frozenset[str]:
    """The distributions beside another interpreter that the sandbox shows for these, what they need included. Raises
    `ConfigError` where one is not there."""
    return frozenset(_ask(interpreter, "packages", {"names": list(names)}, "sandbox.packages"))


@functools.cache
def packages(names: tuple[str, ...]) -> frozenset[str]:
    """The distributions that the sandbox shows for these, what they need included. Raises `ConfigError` where one is
    not there."""
    from evaluation.sandbox import UnknownPackage, find_packages  # what a plan needs for nothing else

    try:
        return frozenset(find_packages(names).versions)
    except UnknownPackage as error:
        fix = "Install it, or leave it out of the list."
        raise ConfigError(str(error), where="sandbox.packages", fix=fix) from error


def _ask(interpreter: Interpreter, question: str, about: dict[str, Any], where: str) -> Any:
    with code_of_a_moment() as code:
        words, asked = ["-P", "-m", "pipeline.plan.inside", question], json.dumps(about)
        try:
            answer = run_under(interpreter.python, words, code, asked=asked, timeout_s=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            message = f"{interpreter.python} has not said in {PROBE_SECONDS:g} s what {where} needs"
            raise ConfigError(message, where=where, fix="Try it again, or look at what that machine does.") from None
    told = (answer.stdout.strip().splitlines() or [""])[-1]
    if answer.returncode == REFUSED:
        message, place, fix = json.loads(told)
        raise ConfigError(f"{message} ({interpreter.python})", where=place, fix=fix)
    if answer.returncode != 0:
        said = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        message = f"{interpreter.python} cannot say what {where} needs: {said}"
        raise ConfigError(message, where=where, fix="Run `vcore doctor CONFIG`.")
    return json.loads(told)


def main(question: str) -> int:
    """Answer a question that stands on standard input, in the interpreter that this is."""
    about = json.load(sys.stdin)
    answer: Any
    try:
        if question == "packages":
            answer = sorted(packages(tuple(about["names"])))
        else:
            found = user_code(CustomCode(**about["code"]), about["libraries"])
            answer = {
                "modules": {name: str(path) for name, path in found.modules.items()},
                "reads": {name: str(path) for name, path in found.reads.items()},
                "ours": sorted(found.ours),
                "distributions": sorted(found.distributions),
                "silent": [str(path) for path in found.silent],
                "absent": found.absent,
            }
    except ConfigError as error:
        print("\n" + json.dumps([error.message, error.where, error.fix]))
        return REFUSED
    print("\n" + json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
