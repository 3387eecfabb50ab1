"""What of a program one of its functions needs, as in evalplus' `sanitize`: imports, and definitions that it reaches.

Models add self-tests, `n = input()` and `main()`, which the task did not ask for and which would end the program
before it is tested.
"""

import ast
import dis
import itertools
import warnings
from collections.abc import Collection, Iterator
from types import CodeType

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` and `compile` raise for a text that is no program, or too deep a one."""
MOST_STATEMENTS = 2000  # a text with more at its top level, each of which takes 0.2 ms, is left as it is
_LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


def parse(source: str) -> ast.Module | None:
    """The program's syntax tree; None where the text is no program."""
    try:
        with warnings.catch_warnings(action="ignore"):  # a program's odd escapes are its own affair
            return ast.parse(source)
    except UNPARSABLE:
        return None


def syntax_error_line(source: str) -> int | None:
    """Number, from 0, of the line where a text stops being a program (0 where there is none); None where it is one."""
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

    What stays: imports, docstrings, settings of the interpreter (`sys.setrecursionlimit`), and statements that bind or
    change a name that is reached: functions and classes, assignments, the loop that fills a table. `if __name__ ==
    "__main__"` never does. The text of what stays is left as it is. A program that does not compile, is endless, or
    binds none of `names`, comes back whole.
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
    staying = {place for place, (node, _, _) in enumerate(statements) if _always_stays(node)}
    while new:
        reached |= new
        for place, (node, _, stores) in enumerate(statements):
            if stores & reached and not _is_main_block(node):
                staying.add(place)
        new = {name for place in staying for name in statements[place][1]} - reached
    return source if len(staying) == len(tree.body) else _text_of(source, tree, staying)


def is_stub(source: str, name: str) -> bool:
    """Whether the last function of this name at a program's top level does nothing yet: `...`, `pass`, a docstring."""
    tree, function = parse(source), ast.FunctionDef | ast.AsyncFunctionDef
    definitions = [node for node in tree.body if isinstance(node, function) and node.name == name] if tree else []
    return bool(definitions) and all(map(_does_nothing, definitions[-1].body))


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplementedError" in ast.dump(node)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _always_stays(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Expr):
        return isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)
    sets = isinstance(node.value, ast.Call) and ast.unparse(node.value.func).startswith("sys.set")
    return isinstance(node.value, ast.Constant) or sets


def _is_call(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


def _loads_and_stores(node: ast.stmt) -> tuple[set[str], set[str]]:
    """Names of the module that a statement reads, also within its functions, and those that it binds or changes: from
    its byte code, which knows what is a function's own, such as an `n` that a later `n = input()` does not change."""
    loads: set[str] = set()
    stores: set[str] = set()
    codes: list[CodeType] = [compile(ast.Module([node], []), "<statement>", "exec", dont_inherit=True)]
    for code in codes:  # the module's, and those of all functions and classes in it
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for instruction in dis.get_instructions(code):
            if instruction.opname in _LOADS:
                loads.add(instruction.argval)
            elif instruction.opname == "STORE_GLOBAL" or (code is codes[0] and instruction.opname == "STORE_NAME"):
                stores.add(instruction.argval)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        stores |= set(_changed(node))
    return loads, stores


def _changed(statement: ast.stmt) -> Iterator[str]:
    """Names whose values a statement changes in place: table[0] = 1, f.cache = {}, table.append(1)."""
    for node in ast.walk(statement):
        target: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            target = node
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            target = node.value.func if isinstance(node.value.func, ast.Attribute) else None
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            yield target.id


def _text_of(source: str, tree: ast.Module, staying: set[int]) -> str:
    """The text without the lines of the other statements; written anew where one of them shares a line with another."""
    decorators = [[decorator.lineno for decorator in getattr(node, "decorator_list", [])] for node in tree.body]
    spans = [(min([node.lineno, *d]), node.end_lineno or 0) for node, d in zip(tree.body, decorators, strict=True)]
    if any(first <= before for (_, before), (first, _) in itertools.pairwise(spans)):
        return ast.unparse(ast.Module([node for place, node in enumerate(tree.body) if place in staying], [])) + "\n"
    dropped: set[int] = set()
    for place, (first, last) in enumerate(spans):
        if place not in staying:
            dropped.update(range(first, last + 1))
    # Not `splitlines`, whose lines are not Python's.
    return "\n".join(line for number, line in enumerate(source.split("\n"), start=1) if number not in dropped)
