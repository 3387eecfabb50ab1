"""Which stages run under another Python than the pipeline's own, and what that one has to have for them."""

import ast
import functools
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline.config.execution import entry_for
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.interpreters import Interpreter, find_python, probe
from pipeline.core.shipped import PACKAGES, ROOT
from pipeline.plan.code import imported_modules, mark, module_file, parse
from pipeline.plan.graph import Stage, build_graph, check_stage
from stages.base.settings import BaseSettings, gguf_file
from stages.harness.versions import library_versions


class Interpreters:
    """The interpreters of one pipeline's stages, each asked once what it has."""

    def __init__(self, config: PipelineConfig) -> None:
        """Raises `ConfigError` for a stage that the pipeline does not have, and for a path that is no Python that can
        run this project's code."""
        self._named: dict[str, Interpreter] = {}
        settings = config.execution.python
        if not settings:
            return
        graph = build_graph(config)
        for name in settings:
            check_stage(graph, name, f"execution.python.{name}")
        pythons = {name: find_python(given, f"execution.python.{name}") for name, given in settings.items()}
        needed: dict[str, set[str]] = {python: set() for python in pythons.values()}
        for stage in graph:
            if (entry := entry_for(stage.name, settings)) is not None:
                needed[pythons[entry]] |= imports_of(stage)
        for name, python in pythons.items():
            self._named[name] = probe(python, needed[python], f"execution.python.{name}")

    def of(self, stage: str) -> Interpreter | None:
        """The interpreter of a stage; None for the pipeline's own."""
        name = entry_for(stage, self._named)
        return self._named[name] if name is not None else None

    def versions(self, stage: str, libraries: Iterable[str], *, exact: bool = False) -> dict[str, str]:
        """Versions of libraries beside the interpreter of a stage, and its own, as they are now
        (stages/harness/versions.py)."""
        interpreter = self.of(stage)
        if interpreter is None:
            return library_versions(libraries, exact=exact)
        return library_versions(libraries, exact=exact, python=interpreter.version, path=interpreter.path)

    def check_imports(self, stages: Iterable[Stage]) -> None:
        """Raises `ConfigError` for an interpreter that lacks what a stage imports that it is to run; all of its stages
        at once, so that one command puts it right."""
        lacking: dict[str, dict[str, set[str]]] = {}
        for stage in stages:
            name = entry_for(stage.name, self._named)
            if name is not None and (lacks := imports_of(stage) & self._named[name].lacks):
                lacking.setdefault(name, {}).setdefault(stage.name, set()).update(lacks)
        for name, by_stage in lacking.items():
            interpreter, modules = self._named[name], sorted(set().union(*by_stage.values()))
            message = f"{interpreter.python} lacks {', '.join(modules)}, which {', '.join(by_stage)} imports"
            fix = f"Run `{interpreter.how_to_install(modules)}`, or name an environment that has it."
            raise ConfigError(message, where=f"execution.python.{name}", fix=fix)


def imports_of(stage: Stage) -> frozenset[str]:
    """Top-level modules of others that the process of a stage imports with its settings.

    Found in the source: from its program on, through this project's files. What is imported inside a function counts as
    well, since a stage loads what is large only when it needs it. A stage that computes with no library here (sampling
    from a server) is taken at its word, and needs what it imports at once.
    """
    kind, settings = stage.kind, stage.settings
    lazily = bool(kind.libraries)
    pending = [f"{kind.program}.__main__", *kind.loads(settings)]
    files = [ROOT / source for source in kind.sources]
    pending += [_module_name(file) for place in files for file in sorted(place.rglob("*.py")) if lazily]
    found, ours = set[str](), {*PACKAGES, kind.program.partition(".")[0]}
    seen = set[str]()
    while pending:
        module = pending.pop()
        top = module.partition(".")[0]
        if module in seen:
            continue
        seen.add(module)
        if top not in ours:
            found |= {top} - sys.stdlib_module_names
        elif (file := module_file(module)) is not None:
            pending += _imports(file, module, mark(file), lazily=lazily)
    vllm = kind.vllm(settings)
    only_where_set = {
        "vllm": vllm is not None,
        "gguf": isinstance(settings, BaseSettings) and gguf_file(settings.source) is not None,
    }
    found -= {name for name, used in only_where_set.items() if not used}
    return frozenset(found.union(module for _, module in kind.modules(settings)))


def _module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def _imports(file: Path, module: str, mark: tuple[int, int, int], *, lazily: bool) -> tuple[str, ...]:
    """Absolute names of what a module of ours imports: anywhere, or only where it is imported itself."""
    tree = parse(file)
    if not lazily:
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return tuple(imported_modules(tree, module, is_package=file.name == "__init__.py"))
