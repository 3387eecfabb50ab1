"""A Python other than the pipeline's own that runs the processes of stages (`execution.python`): where it is, what it
has, and how it finds this project's code.

It runs the same code as the pipeline, whatever is installed beside it: PYTHONPATH leads to that code first, and to
nothing of the pipeline's own environment.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.shipped import ROOT, is_checkout

OLDEST = (3, 11, 3)
"""The oldest Python that runs this project (`requires-python` of pyproject.toml)."""
PROBE_SECONDS = 60.0
"""How long an interpreter may take to say what it has. It takes less than one, on a slow network disk many."""
OWN_MODULES = ("pydantic", "pydantic_core")
"""What the process of every stage imports."""
PROBE = """
import json, sys
told = {"version": list(sys.version_info[:3])}
if sys.version_info >= (3, 11):
    import importlib.util
    told["path"] = sys.path
    told["lacks"] = [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name) is None]
    try:
        import stages.harness.process
        told["code"] = stages.harness.process.__file__
    except Exception as error:
        told["error"] = type(error).__name__ + ": " + str(error)
sys.stdout.write("\\n" + json.dumps(told))
"""
"""What an interpreter is asked, in words that old versions of Python understand too."""


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python and what it has.

    Attributes:
        python: its absolute path; links are kept, since a virtual environment is known by its own.
        version: 3, 12, 4.
        path: where it looks for modules, its `sys.path`.
        lacks: of the modules that it was asked for, those that it does not find.
        state: when what it has changed; what was found out about it holds no longer.
    """

    python: str
    version: tuple[int, ...]
    path: tuple[str, ...]
    lacks: frozenset[str]
    state: tuple[int, ...] = ()

    def how_to_install(self, modules: Iterable[str]) -> str:
        """The command that adds modules to its environment."""
        pip = Path(self.python).with_name("pip")
        words = [str(pip)] if pip.is_file() else [self.python, "-m", "pip"]
        return " ".join([*words, "install", *sorted({_distribution(module) for module in modules})])


def find_python(given: str, where: str) -> str:
    """The absolute path of an interpreter that a setting names: the file itself, or the folder of an environment.

    Raises:
        ConfigError: there is no such file, the folder is no environment, or the file may not be run.
    """
    fix = "Name an interpreter (ENVIRONMENT/bin/python) or the folder of a virtual environment."
    place = Path(os.path.abspath(os.path.expanduser(given)))
    try:
        there = place.exists()
    except OSError as error:
        raise ConfigError(f"{place} cannot be looked at: {error.strerror}", where=where, fix=fix) from error
    if not there:
        what = "is a link to what is not there" if place.is_symlink() else "does not exist"
        raise ConfigError(f"{place} {what}", where=where, fix=fix)
    if place.is_dir():
        found = next((file for name in ("python", "python3") if (file := place / "bin" / name).is_file()), None)
        if found is None:
            raise ConfigError(f"{place} is no environment: it holds no bin/python", where=where, fix=fix)
        place = found
    if not os.access(place, os.X_OK):
        raise ConfigError(f"{place} may not be executed", where=where, fix=fix)
    return str(place)


def probe(python: str, modules: Iterable[str], where: str) -> Interpreter:
    """What an interpreter is and has. It is asked once for the same modules, and anew when its environment changes.

    Args:
        modules: top-level modules that are to be looked for; nothing of them is imported.
        where: the setting that names it, for errors.

    Raises:
        ConfigError: it does not answer in time, is no Python, is too old, or cannot import this project's code.
    """
    try:
        return _probe(python, tuple(sorted({*modules, *OWN_MODULES})), _state_of(python))
    except _Unusable as error:
        raise ConfigError(error.message, where=where, fix=error.fix) from error


class _Unusable(Exception):
    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


def _state_of(python: str) -> tuple[int, ...]:
    """Times of change of an interpreter, of its environment's description and of the folders that hold its libraries:
    a server plans in one process for days, while packages come and environments are made anew."""
    root = Path(python).parent.parent
    places = [Path(python), root / "pyvenv.cfg", *sorted(root.glob("lib*/python*/*-packages"))]
    return tuple(place.stat().st_mtime_ns for place in places if place.exists())


@functools.cache
def _probe(python: str, modules: tuple[str, ...], state: tuple[int, ...]) -> Interpreter:
    oldest = ".".join(map(str, OLDEST))
    fix = f"Name a Python {oldest} or newer, or the folder of a virtual environment that has one."
    with code_of_a_moment() as code:
        try:
            answer = run_under(python, ["-c", PROBE, json.dumps(modules)], code, timeout_s=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            raise _Unusable(f"{python} has not said in {PROBE_SECONDS:g} s what it has", fix) from None
        except OSError as error:
            raise _Unusable(f"{python} cannot be started: {error.strerror}", fix) from None
    told = _last_line(answer.stdout)
    if told is None:
        said = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise _Unusable(f"{python} does not answer as a Python does ({said})", fix)
    version = tuple(told["version"])
    if version < OLDEST:
        raise _Unusable(f"{python} is Python {'.'.join(map(str, version))}, and {oldest} is the oldest that works", fix)
    found = Interpreter(python, version, tuple(folder for folder in told["path"] if folder != code), frozenset())
    if "error" in told and not set(told["lacks"]) & set(OWN_MODULES):
        install = found.how_to_install(OWN_MODULES)
        raise _Unusable(f"{python} cannot import this project's code: {told['error']}", f"Perhaps: {install}")
    if "code" in told and not told["code"].startswith(os.path.join(code, "")):  # by its links, which are gone by now
        other = Path(told["code"]).parents[2]
        message = f"{python} imports the code of this project from {other}, and this is {ROOT}"
        raise _Unusable(message, "Uninstall it there: stages bring the pipeline's own code with them.")
    return dataclasses.replace(found, lacks=frozenset(told["lacks"]), state=state)


def _last_line(output: str) -> dict[str, Any] | None:
    """What the probe has told: what modules print that an environment loads at its start stands before it."""
    try:
        told = json.loads((output.strip().splitlines() or [""])[-1])
    except ValueError:
        return None
    return told if isinstance(told, dict) and "version" in told else None


def environment_of(python: str, code: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process of another interpreter: as where its own environment is activated, with this
    project's code before all else.

    Args:
        code: the folder that the code is imported from (`link_code`).
        environment: of a process that the pipeline's own interpreter would run.
    """
    folder = os.path.dirname(python)
    changed = {
        **environment,
        "PYTHONPATH": os.pathsep.join([code, *_others(os.environ.get("PYTHONPATH", ""))]),
        "PYTHONSAFEPATH": "1",
        "PATH": os.pathsep.join(filter(None, [folder, environment.get("PATH", "")])),
        "VIRTUAL_ENV": os.path.dirname(folder),
    }
    if not os.path.isfile(os.path.join(changed["VIRTUAL_ENV"], "pyvenv.cfg")):
        del changed["VIRTUAL_ENV"]
    return changed


def run_under(
    python: str,
    arguments: list[str],
    code: str,
    *,
    asked: str = "",
    timeout_s: float | None = None,
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """What another interpreter answers.

    Args:
        arguments: of the interpreter.
        code: the folder that this project's code is imported from (`code_of_a_moment`).
        asked: what stands on its standard input.
        environment: of a process that the pipeline's own interpreter would run.

    Raises:
        subprocess.TimeoutExpired: it has not ended in `timeout_s` seconds.
        OSError: it cannot be started.
    """
    return subprocess.run(
        [python, *arguments],
        input=asked,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env=environment_of(python, code, environment),
    )


def _others(python_path: str) -> list[str]:
    """The entries of a PYTHONPATH but the folder of this project's code, which a sweep's cells are given: of an
    installed package that is the folder of all libraries of the pipeline's own Python."""
    return [entry for entry in python_path.split(os.pathsep) if entry and os.path.realpath(entry) != str(ROOT)]


def link_code(folder: Path, program: str = "") -> str:
    """The folder from which another interpreter imports this project's code and nothing else.

    A checkout is such a folder. An installed package lies among the libraries of its environment, which must not take
    the place of the other's: a folder `code` is then made in `folder`, with links to the code alone.

    Args:
        program: the stage's package, whose top level is linked, too.
    """
    if is_checkout():
        return str(ROOT)
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(filter(None, ["pipeline", "stages", "evaluation", program.partition(".")[0]])):
        link = code / name
        if link.is_symlink() and link.readlink() == ROOT / name:
            continue
        link.unlink(missing_ok=True)  # of an attempt before vcore was installed elsewhere
        link.symlink_to(ROOT / name)
    return str(code)


@contextlib.contextmanager
def code_of_a_moment() -> Iterator[str]:
    """A folder as `link_code` makes it, for a process that is waited for."""
    with tempfile.TemporaryDirectory(prefix="vcore-code-") as folder:
        yield link_code(Path(folder))


def _distribution(module: str) -> str:
    """The name by which pip installs a module, as far as the pipeline's own environment knows it."""
    return "vllm" if module == "vllm" else _distributions().get(module, [module])[0]


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
