"""What of a program the names that are tested need: definitions that they reach, as in evalplus' `sanitize`.

Models add self-tests, `n = input()` and `main()`, which the task did not ask for and which would end the program
before it is tested.
"""

import ast
import dis
import threading
import warnings
from collections.abc import Collection, Iterator
from types import CodeType

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` and `compile` raise for a text that is no program, or too deep a one."""
MOST_STATEMENTS = 2000  # a text with more at its top level, each of which takes 0.2 ms, is left as it is
_LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


_PARSING = threading.Lock()


def syntax_tree(source: str) -> ast.Module:
    """The syntax tree of a text, in one thread at a time. Raises one of `UNPARSABLE` where it is no program.

    CPython counts how deep it is in a tree once for all threads: where another one parses in between, it raises
    SystemError (gh-106905; seen in 3.11.7).
    """
    with _PARSING, warnings.catch_warnings(action="ignore"):  # a program's odd escapes are its own affair
        return ast.parse(source)


def parse(source: str) -> ast.Module | None:
    """The program's syntax tree; None where the text is no program."""
    try:
        return syntax_tree(source)
    except UNPARSABLE:
        return None


def syntax_error_line(source: str) -> int | None:
    """Number, from 0, of the line where a text stops being a program (0 where there is none); None where it is one."""
    try:
        syntax_tree(source)
    except SyntaxError as error:
        return (error.lineno or 1) - 1
    except UNPARSABLE:
        return 0
    return None


def forms(source: str, names: Collection[str]) -> tuple[str | CodeType, ...]:
    """What to run of a program whose `names` are tested, one after the other until one comes to its end.

    First the whole of it, in which no statement at its top level that the names do not need can end it: a failing
    assert, `n = input()`, `sys.exit()`, the import of a package that is not there. Such a statement is run all the
    same, for it may do what no analysis sees: fill a table by a call, register a function. Then, for the whole may be
    endless, what the names need and the imports alone. One form, the source, where the names need everything, and for a
    program that does not compile or has more than MOST_STATEMENTS.

    The names need what binds or changes one that is reached: functions and classes, assignments, the loop that fills a
    table; and settings of the interpreter (`sys.setrecursionlimit`).
    """
    tree = parse(source)
    if tree is None or len(tree.body) > MOST_STATEMENTS:
        return (source,)
    try:
        with warnings.catch_warnings(action="ignore"):
            needed = _needed(tree, names)
            rest = {node for node in tree.body if node not in needed and not _is_main_block(node)}
            if not rest:
                return (source,)
            whole = [node if node in needed else _guarded(node) for node in tree.body]
            least = [node for node in tree.body if node in needed or isinstance(node, ast.Import | ast.ImportFrom)]
            bodies = [whole, [node if node in needed else _guarded(node) for node in least]]
            bodies = bodies if rest - set(least) else bodies[:1]
            return tuple(compile(ast.Module(body, []), "<program>", "exec", dont_inherit=True) for body in bodies)
    except UNPARSABLE:
        return (source,)


def _guarded(node: ast.stmt) -> ast.stmt:
    """The statement, after which the program goes on whatever it raises."""
    handler = ast.ExceptHandler(None, None, [ast.Pass()])
    return ast.fix_missing_locations(ast.copy_location(ast.Try([node], [handler], [], []), node))


def _needed(tree: ast.Module, names: Collection[str]) -> set[ast.stmt]:
    """The statements at a program's top level that `names` need."""
    statements = [(node, *_loads_and_stores(node)) for node in tree.body]
    # What is called on a module (sys.exit) or on a definition does not make a table.
    definitions = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = {name for node, _, stores in statements if isinstance(node, definitions) for name in stores}
    statements = [(node, loads, stores - defined if _is_call(node) else stores) for node, loads, stores in statements]
    reached, needed = set[str](), {node for node in tree.body if _always_needed(node)}
    new = {name for node, loads, stores in statements for name in (loads if node in needed else stores & set(names))}
    while new:
        reached |= new
        added = {n for n, _, stores in statements if stores & new and n not in needed and not _is_main_block(n)}
        needed |= added
        new = {name for node, loads, _ in statements if node in added for name in loads} - reached
    return needed


def is_stub(source: str, name: str) -> bool:
    """Whether the last function of this name at a program's top level does nothing yet: `...`, `pass`, a docstring."""
    tree, function = parse(source), ast.FunctionDef | ast.AsyncFunctionDef
    definitions = [node for node in tree.body if isinstance(node, function) and node.name == name] if tree else []
    return bool(definitions) and all(map(_does_nothing, definitions[-1].body))


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplementedError" in ast.dump(node)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _always_needed(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Expr):
        return isinstance(node, ast.Pass) or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
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
