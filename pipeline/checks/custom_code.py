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
TAKES_NOTHING = ast.parse("lambda self: None", mode="eval").body
"""The `__init__` of a class that has none, nor its parents."""


def check_custom_code(stages: Iterable[Stage]) -> None:
    """Raise `ConfigError` for a file that does not parse, a name that it does not define or defines as something else,
    options that it does not take, and a class that defines nothing of what it is for. What cannot be seen without
    running the file passes."""
    for code in (code for stage in stages for code in stage.kind.custom_code(stage.settings)):
        tree = parse_custom(code.file, f"{code.setting}.file")
        definition = _definition(code, tree)
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
            family = _family(definition, tree, code.base)
            _check_defines(family, code, what)
            definition = _maker(definition, family)
        if isinstance(definition, ast.FunctionDef | ast.Lambda):
            _check_options(_signature(definition), code, what)


def _definition(code: CustomCode, tree: ast.Module) -> Definition:
    bound = dict(_bound(tree.body))
    if code.name not in bound and "*" not in bound:
        message = f"{code.file} defines no {code.name!r}{nearest(code.name, bound)}"
        raise ConfigError(message, where=f"{code.setting}.{code.name_field}")
    return bound.get(code.name)


def _family(definition: ast.ClassDef, tree: ast.Module, base: str) -> list[ast.ClassDef] | None:
    """A class and the classes of its file that it derives from, itself first, down to `base`; None where it also has
    parents that cannot be seen, or something else has a hand in making it."""
    bound, bases = dict(_bound(tree.body)), _names_of(base, tree)
    family: list[ast.ClassDef] = []
    pending = [definition]
    while pending:
        one = pending.pop(0)
        if one.decorator_list or one.keywords:
            return None
        family.append(one)
        for parent in map(ast.unparse, one.bases):
            its = bound.get(parent)
            if isinstance(its, ast.ClassDef) and its not in family:
                pending.append(its)
            elif parent not in bases:
                return None
    return family


def _names_of(base: str, tree: ast.Module) -> set[str]:
    """What a file may call a class: by the imports at its top."""
    module, _, name = base.rpartition(".")
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (node.module, alias.name) == (module, name):
                    names.add(alias.asname or name)
                elif f"{node.module}.{alias.name}" == module:
                    names.add(f"{alias.asname or alias.name}.{name}")
        elif isinstance(node, ast.Import):
            names |= {f"{alias.asname or module}.{name}" for alias in node.names if alias.name == module}
    return names


def _check_defines(family: list[ast.ClassDef] | None, code: CustomCode, what: str) -> None:
    """Whether a class defines one of the things that it is there for, in its body or on itself."""
    if family is None or not code.defines:
        return
    defined = {name for one in family for name, _ in _bound(one.body)}
    nodes = [node for one in family for node in ast.walk(one)]
    defined |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    if not defined & set(code.defines):
        listed = f"{', '.join(code.defines[:-1])} or {code.defines[-1]}" if len(code.defines) > 1 else code.defines[0]
        near = nearest(code.defines[0], sorted(defined)).replace("did you mean", "is it")
        message = f"{what} defines no {listed}, so that it would change nothing{near}"
        raise ConfigError(message, where=f"{code.setting}.{code.name_field}", fix=f"See {code.page}.")


def _maker(definition: ast.ClassDef, family: list[ast.ClassDef] | None) -> Definition:
    """The `__init__` that makes a class; None where it cannot be seen."""
    for one in family or [definition]:
        bound = dict(_bound(one.body))
        if "__new__" in bound or one.decorator_list:
            return None
        if "__init__" in bound:
            return bound["__init__"]
    return None if family is None else TAKES_NOTHING


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
