"""Rewards and weighting methods of the user's own, looked at before anything runs: is what the config names there, and does it take its
options? The files are parsed, never run: importing them takes torch."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.schema import PipelineConfig, nearest
from pipeline.core.errors import ConfigError
from stages.sft.method_settings import CustomSettings

REWARD_ARGUMENTS = 3
"""A reward is called with problems, completions and finish reasons."""
METHOD_ARGUMENTS = 1
"""The `self` of a class that is made with nothing but its options."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr | None
"""What a name of a module is bound to; None where that cannot be seen (an import)."""


def check_own_code(config: PipelineConfig, programs: set[str]) -> None:
    """Raise `ConfigError` for a file that does not parse, a name that it does not define or defines as something else, and options that
    it does not take. What cannot be seen without running the file passes."""
    if config.sft is not None and "sft" in programs and isinstance(config.sft.method, CustomSettings):
        method = config.sft.method
        found = _find(method.file, method.class_name, "sft.method", "class_name")
        if isinstance(found, ast.expr | ast.FunctionDef | ast.AsyncFunctionDef) and not _may_be_made(found):
            raise ConfigError(
                f"{method.class_name} of {method.file} is no class",
                where="sft.method.class_name",
                fix="See docs/methods.md.",
            )
        if isinstance(found, ast.ClassDef):
            if not found.bases:
                raise ConfigError(
                    f"{method.class_name} of {method.file} does not derive from stages.sft.reweighting.base.Method",
                    where="sft.method.class_name",
                    fix="See docs/methods.md.",
                )
            made = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
            if made and not found.decorator_list:
                _check_options(
                    made[-1],
                    METHOD_ARGUMENTS,
                    method.options,
                    f"{method.class_name} of {method.file}",
                    "sft.method.options",
                )
    if config.grpo is not None and "grpo" in programs:
        for index, part in enumerate(config.grpo.rewards.custom):
            where = f"grpo.rewards.custom.{index}"
            found = _find(part.file, part.function, where, "function")
            if isinstance(found, ast.ClassDef | ast.AsyncFunctionDef) or (
                isinstance(found, ast.expr) and not _may_be_made(found)
            ):
                raise ConfigError(
                    f"{part.function} of {part.file} is no function", where=f"{where}.function", fix="See docs/rl.md."
                )
            if isinstance(found, ast.FunctionDef):
                _check_options(
                    found, REWARD_ARGUMENTS, part.options, f"{part.function} of {part.file}", f"{where}.options"
                )


def _find(file: str, name: str, where: str, setting: str) -> Definition:
    path = Path(file).expanduser()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(
            f"{file}{line} is not Python: {error}", where=f"{where}.file", fix="Name a Python file."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", where=f"{where}.file", fix="Name a Python file."
        ) from None
    bound = dict(_bound(tree.body))
    if name not in bound and "*" not in bound:
        raise ConfigError(f"{file} defines no {name!r}{nearest(name, bound)}", where=f"{where}.{setting}")
    return bound.get(name)


def _bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, Definition]]:
    """(name, what it is bound to) of a module's statements, in order; `*` stands for all that a star import may bring."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, None if node.decorator_list and not isinstance(node, ast.ClassDef) else node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
                else:
                    yield from ((part.id, None) for part in ast.walk(target) if isinstance(part, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (((alias.asname or alias.name).partition(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _bound(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _bound(handler.body)


def _may_be_made(found: Definition) -> bool:
    """Whether an expression may give a function or a class: a name, a call (functools.partial), a lambda; not a constant or a list."""
    return isinstance(found, ast.Name | ast.Attribute | ast.Call | ast.Lambda | ast.IfExp | ast.Subscript | ast.BoolOp)


def _check_options(function: ast.FunctionDef, given: int, options: Mapping[str, Any], what: str, where: str) -> None:
    """Whether a function can be called with `given` positional arguments and these options."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    if len(positional) < given and arguments.vararg is None:
        raise ConfigError(
            f"{what} takes {len(positional)} arguments, and is called with {given}",
            where=where.rpartition(".")[0],
            fix="See docs/rl.md.",
        )
    named = [argument.arg for argument in arguments.args if argument in positional[given:]]
    with_default = (
        {argument.arg for argument in positional[len(positional) - len(arguments.defaults) :]}
        if arguments.defaults
        else set()
    )
    with_default |= {
        a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is not None
    }
    named += [argument.arg for argument in arguments.kwonlyargs]
    for option in options:
        if option not in named and (
            arguments.kwarg is None or option in {argument.arg for argument in positional[:given]}
        ):
            raise ConfigError(f"{what} takes no {option!r}{nearest(option, named) if named else ''}", where=where)
    missing = [name for name in named if name not in with_default and name not in options]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}", where=where, fix="Give a value for each.")
