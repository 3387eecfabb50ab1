"""Custom rewards and weighting methods, looked at before anything runs: does the file define what the config names, and
does it take its options? The files are parsed, never run: importing them takes torch."""

import ast
import copy
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from evaluation.harness.nearest import nearest
from pipeline.core.errors import ConfigError
from pipeline.plan.graph import Stage
from pipeline.plan.user_code import parse_custom
from stages.harness.declaration import CustomCode

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr | None
"""What a name of a module is bound to; None where that cannot be seen (an import)."""


def check_custom_code(stages: Iterable[Stage]) -> None:
    """Raise `ConfigError` for a file that does not parse, a name that it does not define or defines as something else,
    and options that it does not take. What cannot be seen without running the file passes."""
    for code in (code for stage in stages for code in stage.kind.custom_code(stage.settings)):
        definition = _definition(code)
        what = f"{code.name} of {code.file}"
        where = f"{code.setting}.{code.name_field}"
        if not _may_be(code.kind, definition):
            raise ConfigError(f"{what} is no {code.kind}", where=where, fix=f"See {code.page}.")
        if isinstance(definition, ast.AsyncFunctionDef) or _is_generator(definition):
            kind = "an async function" if isinstance(definition, ast.AsyncFunctionDef) else "a generator"
            fix = f"Make it a plain function that returns its values. See {code.page}."
            raise ConfigError(f"{what} is {kind}, and nobody would run it", where=where, fix=fix)
        if isinstance(definition, ast.ClassDef):
            if not definition.bases:
                message = f"{what} does not derive from {code.base}"
                raise ConfigError(message, where=where, fix=f"See {code.page}.")
            made = [node for node in definition.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
            definition = made[-1] if made and not definition.decorator_list else None
        if isinstance(definition, ast.FunctionDef | ast.Lambda):
            _check_options(_signature(definition), code, what)


def _definition(code: CustomCode) -> Definition:
    tree = parse_custom(code.file, f"{code.setting}.file")
    bound = dict(_bound(tree.body))
    if code.name not in bound and "*" not in bound:
        message = f"{code.file} defines no {code.name!r}{nearest(code.name, bound)}"
        raise ConfigError(message, where=f"{code.setting}.{code.name_field}")
    return bound.get(code.name)


def _bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, Definition]]:
    """(name, what it is bound to) of a module's statements, in order; `*` stands for whatever a star import brings."""
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


def _may_be(kind: str, definition: Definition) -> bool:
    """Whether a name may stand for a function or a class: a call or a lambda may, a constant or a list may not."""
    if isinstance(definition, ast.expr):
        maybe = ast.Name | ast.Attribute | ast.Call | ast.Lambda | ast.IfExp | ast.Subscript | ast.BoolOp
        return isinstance(definition, maybe)
    function = ast.FunctionDef | ast.AsyncFunctionDef
    return definition is None or isinstance(definition, ast.ClassDef if kind == "class" else function)


def _is_generator(definition: Definition | ast.stmt) -> bool:
    """Whether a function yields, itself and not a function inside it."""
    if not isinstance(definition, ast.FunctionDef | ast.Lambda):
        return False
    inside: list[ast.AST] = [*definition.body] if isinstance(definition, ast.FunctionDef) else [definition.body]
    while inside:
        node = inside.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            inside.extend(ast.iter_child_nodes(node))
    return False


def _signature(function: ast.FunctionDef | ast.Lambda) -> inspect.Signature:
    """The signature of a function that is only parsed; a default stands for any."""
    arguments = copy.deepcopy(function.args)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    nothing = ast.Constant(None)
    arguments.defaults = [nothing for _ in arguments.defaults]
    arguments.kw_defaults = [None if default is None else nothing for default in arguments.kw_defaults]
    empty = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, nothing)))
    return inspect.signature(eval(compile(empty, "<signature>", "eval")))


def _check_options(signature: inspect.Signature, code: CustomCode, what: str) -> None:
    """Whether it can be called with the positional arguments it will get and these options."""
    where = f"{code.setting}.options"
    of_kind: dict[Any, list[inspect.Parameter]] = {}
    for parameter in signature.parameters.values():
        of_kind.setdefault(parameter.kind, []).append(parameter)
    positional = of_kind.get(inspect.Parameter.POSITIONAL_ONLY, [])
    positional = positional + of_kind.get(inspect.Parameter.POSITIONAL_OR_KEYWORD, [])
    if len(positional) < code.positional and inspect.Parameter.VAR_POSITIONAL not in of_kind:
        message = f"{what} takes {len(positional)} arguments, and is called with {code.positional}"
        raise ConfigError(message, where=code.setting, fix=f"See {code.page}.")
    taken = {parameter.name for parameter in positional[: code.positional]}
    named = [p for p in positional[code.positional :] if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    named += of_kind.get(inspect.Parameter.KEYWORD_ONLY, [])
    names = [parameter.name for parameter in named]
    for option in code.options:
        if option not in names and (inspect.Parameter.VAR_KEYWORD not in of_kind or option in taken):
            raise ConfigError(f"{what} takes no {option!r}{nearest(option, names) if names else ''}", where=where)
    missing = [p.name for p in named if p.default is inspect.Parameter.empty and p.name not in code.options]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}", where=where, fix="Give a value for each.")
