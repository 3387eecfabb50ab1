"""Taking asserts apart: what is evaluated beside the program, and what its values should be, which it never sees."""

import ast
import dataclasses

from evaluation.graders.reachable import syntax_tree
from evaluation.sandbox.comparison import Expected
from evaluation.sandbox.values import write


class ReferenceFailed(RuntimeError):
    """The reference program or a test is not what the schema says: nothing can be graded by it."""


@dataclasses.dataclass(frozen=True)
class Assert:
    """One assert, taken apart. Exactly one of `expected`, `other_side` and `rest` is set."""

    expressions: tuple[str, ...]
    """What is evaluated beside the program."""
    expected: Expected | None = None
    """The value that the one expression should have."""
    other_side: str | None = None
    """The expression whose value, beside the reference program, is the expected one."""
    rest: str | None = None
    """A function of the expressions' values, evaluated beside the reference program: whether the assert holds."""


def take_apart(statement: str, entry_point: str) -> Assert:
    """The parts of an assert that calls `entry_point`. Raises `ReferenceFailed` for one that cannot be taken apart."""
    try:
        body = syntax_tree(statement.strip()).body
    except SyntaxError as error:
        raise ReferenceFailed(f"not an assert: {statement!r}: {error}") from error
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise ReferenceFailed(f"not one assert statement: {statement!r}")
    test = body[0].test
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        left, right = test.left, test.comparators[0]
        if _mentions(right, entry_point) and not _mentions(left, entry_point):
            left, right = right, left
        if _mentions(left, entry_point) and not _mentions(right, entry_point):
            try:
                return Assert((ast.unparse(left),), Expected(write(ast.literal_eval(right))))
            except (ValueError, TypeError):
                return Assert((ast.unparse(left),), other_side=ast.unparse(right))
    bare = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else test
    if _is_call(bare, entry_point):
        # What counts is whether it is true; a match object could not be sent back.
        return Assert((f"True if {ast.unparse(bare)} else False",), Expected(write(bare is test)))
    holes = _Holes(entry_point)
    rest = holes.visit(test)
    if not holes.calls or _mentions(rest, entry_point):
        raise ReferenceFailed(f"an assert that cannot be taken apart into calls of {entry_point}: {statement!r}")
    names = ", ".join(f"_value_{place}" for place in range(len(holes.calls)))
    return Assert(tuple(holes.calls), rest=f"lambda {names}: {ast.unparse(rest)}")


class _Holes(ast.NodeTransformer):
    """Puts a name in the place of each call of the entry point, and keeps the calls."""

    def __init__(self, entry_point: str) -> None:
        self.entry_point = entry_point
        self.calls: list[str] = []

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if not _is_call(node, self.entry_point):
            self.generic_visit(node)
            return node
        self.calls.append(ast.unparse(node))
        return ast.Name(f"_value_{len(self.calls) - 1}", ast.Load())

    def _keep(self, node: ast.expr) -> ast.expr:
        return node  # a call in there uses names that exist only in there

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_Lambda = _keep


def _is_call(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
