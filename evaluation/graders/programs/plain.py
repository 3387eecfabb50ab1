"""Which programs may be run on several cases in one process: those that leave nothing behind for the next one.

It is a matter of speed. A process that has run before may only make a program fail that is right, and so a case that
fails there is run again in a process of its own; expected outputs are in no process, so none makes a wrong one right.
"""

import ast

from evaluation.graders.reachable import parse

STATELESS = {
    "abc", "array", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "enum", "fractions",
    "functools", "heapq", "io", "itertools", "json", "math", "numbers", "operator", "queue", "random", "re",
    "statistics", "string", "textwrap", "time", "typing",
}  # fmt: skip
"""Modules of which programs use no state, unless they store into them; random numbers go on, as random as before."""
PARTS = {
    "sys": {
        "stdin", "stdout", "stderr", "exit", "setrecursionlimit", "getrecursionlimit", "maxsize", "argv",
        "set_int_max_str_digits", "version_info", "float_info", "getsizeof",
    },
    "os": {"read", "write", "fstat", "linesep"},
}  # fmt: skip
"""Modules of which only some parts are used by programs that leave nothing behind."""
REACHING = {
    "exec", "eval", "compile", "__import__", "setattr", "delattr", "globals", "locals", "vars", "breakpoint",
    "__builtins__", "__loader__", "__spec__",
}  # fmt: skip
"""Names through which a program reaches what the next case would see."""
HARMLESS = {
    "__init__", "__name__", "__class__", "__len__", "__getitem__", "__contains__", "__lt__", "__iter__", "__next__",
    "__doc__", "__repr__", "__str__", "__hash__", "__eq__",
}  # fmt: skip
"""Attributes with such names that reach nothing."""


def leaves_nothing(source: str) -> bool:
    """Whether the program changes nothing that another run in the same process would see; False where that is not
    plain from its text."""
    tree = parse(source)
    if tree is None:
        return False
    nodes = list(ast.walk(tree))
    imported = {bound for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for bound in _bound(node)}
    return all(_is_harmless(node, imported) for node in nodes)


def _bound(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}


def _is_harmless(node: ast.AST, imported: set[str]) -> bool:
    if isinstance(node, ast.Import):
        return all(
            alias.name.partition(".")[0] in STATELESS or (alias.name in PARTS and alias.asname is None)
            for alias in node.names
        )
    if isinstance(node, ast.ImportFrom):
        module = (node.module or "").partition(".")[0]
        names = {alias.name for alias in node.names}
        return module in STATELESS or (node.module in PARTS and names <= PARTS[module])
    if isinstance(node, ast.Name):
        return node.id not in REACHING
    if isinstance(node, ast.Attribute):
        if node.attr.startswith("__") and node.attr not in HARMLESS:
            return False
        base = _base(node)
        if isinstance(node.value, ast.Name) and node.value.id in PARTS and node.attr not in PARTS[node.value.id]:
            return False
        return isinstance(node.ctx, ast.Load) or base not in imported
    if isinstance(node, ast.Subscript):
        return isinstance(node.ctx, ast.Load) or _base(node) not in imported
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
        return bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value in (0, 1)
    return True


def _base(node: ast.expr) -> str | None:
    """The name that a chain of attributes and subscripts begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
