"""Test inputs in the two forms that EvalPlus publishes HumanEval+ and MBPP+ in (Liu et al., 2023, arXiv:2305.01210).

The release files hold them as JSON. The hub's data sets write the same inputs out in a Python test, which is read as
data and never run: expected values always come from the canonical solution.
"""

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.records import RecordError


def release_inputs(
    row: Mapping[str, Any], where: str, typed: Callable[[list[Any]], list[Any]] = list
) -> list[list[Any]]:
    """The argument lists in a release row's `base_input` and `plus_input`, each as `typed` returns it.

    Raises:
        RecordError: there are none, or they do not have the shape that `typed` expects.
    """
    inputs: list[list[Any]] = []
    for column in ("base_input", "plus_input"):
        value = row.get(column) or []  # the release writes {} for a problem without further inputs
        if not isinstance(value, list) or not all(isinstance(arguments, list) for arguments in value):
            raise RecordError(f"{where}: {column} is not a list of argument lists")
        try:
            inputs += map(typed, value)
        except (TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"{where}: {column} has arguments of another shape than this task's: {error}") from error
    if not inputs:
        raise RecordError(f"{where}: no test inputs")
    return inputs


def read_hub_test(test: str, where: str) -> tuple[list[list[Any]], str | None, Any]:
    """Inputs, function and tolerance out of the text of a hub row's `test`.

    It reads `inputs = [...]`, then a loop with `assertion(ENTRY_POINT(*inp), exp, ATOL)`; in HumanEval+ both lie in
    the function `check`. Without such a call the function is None and the tolerance 0.

    Raises:
        RecordError: it is not Python, has no list `inputs`, or its values are no literals.
    """
    try:
        body = ast.parse(test).body
    except SyntaxError as error:
        raise RecordError(f"{where}: the column 'test' is not Python: {error}") from error
    helpers = [part for part in body if isinstance(part, ast.FunctionDef) and part.name != "check"]
    inputs, entry_point, atol = None, None, 0
    for node in (node for part in body if part not in helpers for node in ast.walk(part)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "inputs":
            inputs = _literal(node.value, where)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "assertion":
            called = node.args[0]
            if isinstance(called, ast.Call) and isinstance(called.func, ast.Name):
                entry_point, atol = called.func.id, _literal(node.args[-1], where)
    if not isinstance(inputs, list) or not inputs or not all(isinstance(given, list | tuple) for given in inputs):
        raise RecordError(f"{where}: the column 'test' holds no list `inputs` of argument lists")
    return [list(arguments) for arguments in inputs], entry_point, atol


def distinct(inputs: Iterable[Any]) -> list[Any]:
    """The test inputs (JSON values) without repetitions, in their order.

    The release files repeat some inputs, the data sets on the hub do not: read this way they are the same tests.
    """
    return list({json.dumps(value): value for value in inputs}.values())


def tolerance(value: Any, where: str) -> float:
    """The absolute tolerance of a task's results; `RecordError` where it is not a number from 0 up."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise RecordError(f"{where}: atol is {value!r}, not a tolerance")
    return float(value)


class _Infinity(ast.NodeTransformer):
    """Turns the name `inf`, as which the tests write infinity, into a literal."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float("inf")) if node.id == "inf" else node


def _literal(node: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(_Infinity().visit(node))
    except (ValueError, TypeError) as error:
        raise RecordError(f"{where}: the inputs are not literals: {error}") from error
