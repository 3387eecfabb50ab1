"""The code part of a stage's key: digests of the source files that compute.

A key holds what computes. What only carries a stage (its process, progress, errors, the scheduling of its work, the
texts that people read) is in files that no key holds: see `computes`. docs/keys.md says the same in a reader's words.
"""

import ast
import hashlib
import importlib.util
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.shipped import ROOT
from stages.harness.declaration import StageDeclaration

CARRIERS = ("harness", "stage.py", "catalogue.py")
"""Folders and files that carry a stage and compute nothing: what they say of a result enters the key by its value."""
SETTING = ("identity", "execution")
"""Calls that declare a setting: its value enters the key, so its default, its limits and its type need not."""
_PARSER = threading.Lock()


def computes(file: Path) -> bool:
    """Whether a source file of ours can change a result, and so belongs into the keys of the stages that run it."""
    return not any(part in CARRIERS or part.startswith("__pycache__") for part in file.relative_to(ROOT).parts)


def source_digests(program: str, sources: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> dict[str, str]:
    """Digest of every source file of ours that a stage runs and that can change its result, as the files are now.

    Python files count by their syntax tree, without docstrings, comments and the declarations of settings. A file is
    read again only where its size, its time or its inode has changed.

    Args:
        program: the package that is run; its imports are followed.
        sources: files and folders that it runs without importing them, relative to the project.
        modules: modules that it loads by name; their imports are followed too.

    Returns:
        Path relative to the project -> digest, sorted by path.
    """
    digests: dict[str, str] = {}
    ours = {"stages", "evaluation", program.partition(".")[0]}
    pending, seen = [f"{program}.__main__", *modules], set()
    while pending:
        module = pending.pop()
        file = module_file(module) if module.partition(".")[0] in ours else None
        if module in seen or file is None or not computes(file):
            continue
        seen.add(module)
        digests[str(file.relative_to(ROOT))], imported = _read_module(file, module, mark(file))
        pending += imported
    for file in _files(sources):
        digests[str(file.relative_to(ROOT))] = _read_file(file, mark(file))
    if not digests:
        raise ConfigError(f"there is no stage program {program}")
    return dict(sorted(digests.items()))


def code_of(kind: StageDeclaration[Any], settings: Any, more: frozenset[str] = frozenset()) -> dict[str, str]:
    """The digests of the sources that a stage with these settings runs, as they were when this process first asked.

    Args:
        more: modules that are loaded beside those of the stage's declaration.
    """
    return _first_digests(*_sources_of(kind, settings, more))


def code_now(kind: StageDeclaration[Any], settings: Any, more: frozenset[str] = frozenset()) -> dict[str, str]:
    """As `code_of`, of the files as they are now. Raises `OSError` or `SyntaxError` for one that cannot be read."""
    return source_digests(*_sources_of(kind, settings, more))


_first_digests = cache(source_digests)


def _sources_of(
    kind: StageDeclaration[Any], settings: Any, more: frozenset[str]
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return kind.program, kind.sources, tuple(sorted({*kind.loads(settings), *more}))


def module_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _files(sources: Iterable[str]) -> Iterator[Path]:
    for base in (ROOT / source for source in sources):
        candidates = sorted(base.rglob("*")) if base.is_dir() else [base]
        yield from (file for file in candidates if file.is_file() and computes(file))


def mark(file: Path) -> tuple[int, int, int]:
    """What changes with a file: taken before the file is read, it never stands for what was written later."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@cache
def _read_module(file: Path, module: str, mark: tuple[int, int, int]) -> tuple[str, tuple[str, ...]]:
    """The digest of a module, and the modules that it imports."""
    tree = parse(file)
    imported = tuple(imported_modules(tree, module, is_package=file.name == "__init__.py"))
    return _tree_digest(tree), imported  # the digest last: it takes the tree apart


@cache
def _read_file(file: Path, mark: tuple[int, int, int]) -> str:
    if file.suffix == ".py":
        return _tree_digest(parse(file))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def parse(file: Path) -> ast.Module:
    # One at a time: until 3.11.8 Python's parser counts its depth for all threads together (python/cpython#106905).
    with _PARSER:
        return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imported_modules(tree: ast.Module, module: str, *, is_package: bool) -> list[str]:
    """Modules that a module imports, anywhere in it, with the packages around them; relative imports resolved."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = module if is_package else module.rpartition(".")[0]
                origin = importlib.util.resolve_name("." * node.level + origin, package)
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    with_parents = {".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)}
    return sorted(with_parents)


def _tree_digest(tree: ast.Module) -> str:
    """The digest of what a file computes. Takes strings that document, and declared settings, out of the tree."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _says_only(statement)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _says_only(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return isinstance(statement.value.value, str)
    call = statement.value if isinstance(statement, ast.AnnAssign) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in SETTING
