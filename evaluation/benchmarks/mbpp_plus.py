"""MBPP+ (Liu et al., 2023, arXiv:2305.01210): 378 problems of sanitized MBPP with about 35 times as many test inputs.

The release file has the inputs as JSON, which knows neither tuples nor sets nor complex numbers; they are turned back here for each task.
The hub's data set writes the same inputs out in a Python test, which is read as data and never run: expected values always come from the
canonical solution. A program is right when it is on the inputs of MBPP (base) and on all the further ones (plus).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.mbpp import docstring
from evaluation.benchmarks.rows import check_set, distinct, text
from evaluation.records import Problem, RecordError
from evaluation.sandbox.values import encode

NAME = "mbpp_plus"
SIZE = 378

SAME_SET = {
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
}
"""Functions whose results EvalPlus compares as sets: the tasks ask for elements, not for their order."""
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
"""Functions that may return a match object: what counts is whether there is one."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tuples_within(value: Any) -> Any:
    return [_tuple(item) for item in value] if isinstance(value, list) else value


def _deep_tuple(value: Any) -> Any:
    return tuple(_deep_tuple(item) for item in value) if isinstance(value, list) else value


def _sets_within(value: Any) -> Any:
    return [set(item) if item else {} for item in value]  # the release's own canonical inputs hold {} for nothing


def _values_to_tuples(value: Any) -> Any:
    return {key: tuple(item) for key, item in value.items()}


def _same(value: Any) -> Any:
    return value


Convert = Callable[[Any], Any]
_EVERY: dict[Convert, set[int]] = {
    _tuple: {
        2,
        116,
        132,
        143,
        222,
        261,
        273,
        394,
        399,
        421,
        424,
        429,
        470,
        560,
        579,
        596,
        616,
        630,
        726,
        740,
        744,
        809,
    },
    _tuples_within: {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780},
    lambda value: _tuple(_tuples_within(value)): {259, 278, 401, 445},
    _deep_tuple: {580, 615, 791},
    complex: {252},
    _sets_within: {115},
}
"""Tasks all of whose arguments are converted in the same way."""
_BY_PLACE: dict[tuple[Convert, ...], set[int]] = {
    (_tuples_within, _same): {75, 413, 444, 753},
    (_same, _tuple): {106, 750},
    (_tuple, _same): {250, 405, 446, 617, 720, 763, 808},
    (_tuple, _same, _same): {307},
    (_values_to_tuples, _same, _same): {722},
    (float, complex): {124},
}
"""Tasks whose arguments differ."""


def typed_arguments(task: int, arguments: list[Any]) -> list[Any]:
    """One argument list of the release with the types that the task's program expects."""
    for convert, tasks in _EVERY.items():
        if task in tasks:
            return [convert(argument) for argument in arguments]
    for converts, tasks in _BY_PLACE.items():
        if task in tasks:
            return [convert(argument) for convert, argument in zip(converts, arguments, strict=True)]
    return arguments


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns of the release: task_id ("Mbpp/2"), prompt, entry_point, canonical_solution, base_input, plus_input, atol, assertion.

    Columns of the hub: task_id (2), prompt, code, test_list, test.
    """
    return check_set([_problem(number, row) for number, row in enumerate(rows, start=1)], SIZE, NAME)


def _problem(number: int, row: Mapping[str, Any]) -> Problem:
    task_id = str(row.get("task_id", "")).removeprefix("Mbpp/")
    if not task_id.isdecimal():
        raise RecordError(f"{NAME}, row {number}: task_id is {row.get('task_id')!r}, not of the form Mbpp/2")
    where = f"{NAME} Mbpp/{task_id}"
    if "base_input" in row:
        entry_point = text(row, ("entry_point",), where)
        question = text(row, ("prompt",), where).strip().strip('"').strip()
        inputs, atol = _release_inputs(int(task_id), row, where), row.get("atol")
    else:
        entry_point, inputs, atol = _hub_test(text(row, ("test",), where), where)
        question = text(row, ("prompt",), where).strip() + "\n" + str((row.get("test_list") or [""])[0]).strip()
    if isinstance(atol, bool) or not isinstance(atol, int | float) or atol < 0:
        raise RecordError(f"{where}: atol is {atol!r}, not a tolerance")
    tests: dict[str, Any] = {
        "entry_point": entry_point,
        "preamble": "",
        "typed_inputs": ["l", *distinct(encode(inputs)[1:])],
        "atol": float(atol),
    }
    if entry_point in SAME_SET:
        tests["check"] = "same_set"
    elif entry_point in NOT_NONE:
        tests["check"] = "not_none"
    return Problem(
        id=f"Mbpp/{task_id}",
        benchmark=NAME,
        kind="code",
        prompt=f"{question}\n\nPut the complete program, with every import it needs, into one Python code block at the end.",
        gold=text(row, ("canonical_solution", "code"), where),
        tests=tests,
        meta={"completion": docstring(question, [])},
    )


def _release_inputs(task: int, row: Mapping[str, Any], where: str) -> list[list[Any]]:
    inputs: list[list[Any]] = []
    for column in ("base_input", "plus_input"):
        value = row.get(column) or []
        if not isinstance(value, list) or not all(isinstance(arguments, list) for arguments in value):
            raise RecordError(f"{where}: {column} is not a list of argument lists")
        try:
            inputs += [typed_arguments(task, arguments) for arguments in value]
        except (TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"{where}: {column} has arguments of another shape than this task's: {error}") from error
    if not inputs:
        raise RecordError(f"{where}: no test inputs")
    return inputs


def _hub_test(test: str, where: str) -> tuple[str, list[list[Any]], Any]:
    """Entry point, inputs and tolerance out of the text of the hub's test.

    Its end reads `inputs = [...]`, then a loop with `assertion(ENTRY_POINT(*inp), exp, ATOL)`.
    """
    try:
        body = ast.parse(test).body
    except SyntaxError as error:
        raise RecordError(f"{where}: the column 'test' is not Python: {error}") from error
    inputs: Any = None
    call: tuple[str, Any] | None = None
    for node in (
        part for statement in body if not isinstance(statement, ast.FunctionDef) for part in ast.walk(statement)
    ):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "inputs":
            inputs = _literal(node.value, where)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "assertion":
            called = node.args[0]
            if isinstance(called, ast.Call) and isinstance(called.func, ast.Name):
                call = called.func.id, _literal(node.args[-1], where)
    if not isinstance(inputs, list) or not inputs or call is None:
        raise RecordError(f"{where}: the column 'test' holds no list `inputs` and no call of `assertion`")
    return call[0], [list(arguments) for arguments in inputs], call[1]


class _Infinity(ast.NodeTransformer):
    """The file writes infinity as the name `inf`, which is no literal."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float("inf")) if node.id == "inf" else node


def _literal(node: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(_Infinity().visit(node))
    except (ValueError, TypeError) as error:
        raise RecordError(f"{where}: the inputs are not literals: {error}") from error


BENCHMARK = Benchmark(
    name=NAME,
    kind="code",
    size=SIZE,
    digest="3700b8212f82",
    sources={"test": Source(local="mbppplus/MbppPlus.jsonl.gz", hub="evalplus/mbppplus", hub_split="test")},
    parse=parse,
)
