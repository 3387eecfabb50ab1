"""What of a program one of its functions needs, as in evalplus' `sanitize`: imports, and definitions that the function reaches.

Models add self-tests, `n = input()` and `main()`, which the task did not ask for and which would end the program before it is tested.
"""

from __future__ import annotations

import ast
import dis
import itertools
import warnings
from collections.abc import Collection, Iterator
from types import CodeType

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` and `compile` raise for a text that is no program, or too deep a one."""
MOST_STATEMENTS = 2000
"""A text with more at its top level is left as it is; no program of a model's has so many, and each takes a fifth of a millisecond."""
_LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


def parse(source: str) -> ast.Module | None:
    """The program's syntax tree; None where the text is no program."""
    try:
        with warnings.catch_warnings(action="ignore"):  # a program's odd escapes are its own affair
            return ast.parse(source)
    except UNPARSABLE:
        return None


def syntax_error_line(source: str) -> int | None:
    """Number of the line, from 0, where a text stops being a program, 0 where none can be named; None where it is one."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(source)
    except SyntaxError as error:
        return (error.lineno or 1) - 1
    except UNPARSABLE:
        return 0
    return None


def reachable(source: str, names: Collection[str]) -> str:
    """The program without the statements at its top level that none of `names` needs.

    What stays: imports, docstrings, settings of the interpreter (`sys.setrecursionlimit`), and statements that bind or change a name
    that is reached: functions and classes, assignments, the loop that fills a table. `if __name__ == "__main__"` never does. The text of
    what stays is left as it is. A program that does not compile, is endless, or binds none of `names`, comes back whole.
    """
    tree = parse(source)
    if tree is None or len(tree.body) > MOST_STATEMENTS:
        return source
    try:
        with warnings.catch_warnings(action="ignore"):
            statements = [(node, *_loads_and_stores(node)) for node in tree.body]
    except UNPARSABLE:
        return source
    # What is called on a module (sys.exit) or on a definition does not make a table.
    definitions = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = {name for node, _, stores in statements if isinstance(node, definitions) for name in stores}
    statements = [(node, loads, stores - defined if _is_call(node) else stores) for node, loads, stores in statements]
    reached: set[str] = set()
    new = {name for _, _, stores in statements for name in stores if name in names}
    if not new:
        return source
    kept = {place for place, (node, _, _) in enumerate(statements) if _always_stays(node)}
    while new:
        reached |= new
        kept |= {
            place for place, (node, _, stores) in enumerate(statements) if stores & reached and not _is_main_block(node)
        }
        new = {name for place in kept for name in statements[place][1]} - reached
    return source if len(kept) == len(tree.body) else _text_of(source, tree, kept)


def is_stub(source: str, name: str) -> bool:
    """Whether the last function of this name at the top level of a program does nothing yet: `...`, `pass`, a docstring alone."""
    tree = parse(source)
    found = (
        [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name]
        if tree
        else []
    )
    return bool(found) and all(map(_does_nothing, found[-1].body))


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplementedError" in ast.dump(node)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _always_stays(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
        return True
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) or (
        isinstance(node.value, ast.Call) and ast.unparse(node.value.func).startswith("sys.set")
    )


def _is_call(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


def _loads_and_stores(node: ast.stmt) -> tuple[set[str], set[str]]:
    """Names of the module that a statement reads, also within its functions, and those that it binds or changes.

    Read from its byte code, which knows what is a function's own: the `n` of a function has nothing to do with a later `n = input()`.
    """
    loads: set[str] = set()
    stores: set[str] = set()
    module = compile(ast.Module([node], []), "<statement>", "exec", dont_inherit=True)
    for code in _codes(module):
        for instruction in dis.get_instructions(code):
            if instruction.opname in _LOADS:
                loads.add(instruction.argval)
            elif instruction.opname == "STORE_GLOBAL" or (code is module and instruction.opname == "STORE_NAME"):
                stores.add(instruction.argval)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        stores |= set(_changed(node))
    return loads, stores


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _changed(statement: ast.stmt) -> Iterator[str]:
    """Names whose values a statement changes in place: table[0] = 1, f.cache = {}, table.append(1)."""
    for node in ast.walk(statement):
        target: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            target = node
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            target = node.value.func
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            yield target.id


def _text_of(source: str, tree: ast.Module, kept: set[int]) -> str:
    """The text without the lines of the statements that do not stay; written anew where such a statement shares a line with another."""
    spans = [
        (min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]), node.end_lineno or 0)
        for node in tree.body
    ]
    if any(first <= before for (_, before), (first, _) in itertools.pairwise(spans)):
        return ast.unparse(ast.Module([node for place, node in enumerate(tree.body) if place in kept], [])) + "\n"
    dropped = {
        line for place, (first, last) in enumerate(spans) if place not in kept for line in range(first, last + 1)
    }
    # Not `splitlines`, whose lines are not Python's.
    return "\n".join(line for number, line in enumerate(source.split("\n"), start=1) if number not in dropped)
