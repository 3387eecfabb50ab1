"""HumanEval+ (Liu et al., 2023, arXiv:2305.01210): the 164 problems of HumanEval with about 80 times as many test inputs.

The release file has the inputs as JSON (base_input, plus_input, atol). The hub's data set has the same inputs written out as a Python
test, which is read as data here and never run: expected values always come from the canonical solution.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.humaneval import FIND_ZERO, FIND_ZERO_TOLERANCE, preamble
from evaluation.benchmarks.rows import check_set, distinct, function_prompt, text
from evaluation.records import Problem, RecordError

NAME = "humaneval_plus"
SIZE = 164


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: task_id, prompt, canonical_solution, entry_point; base_input, plus_input, atol (release) or test (hub)."""
    return check_set([_problem(number, row) for number, row in enumerate(rows, start=1)], SIZE, NAME)


def _problem(number: int, row: Mapping[str, Any]) -> Problem:
    task_id = text(row, ("task_id",), f"{NAME}, row {number}")
    where = f"{NAME} {task_id}"
    prompt, entry_point = text(row, ("prompt",), where), text(row, ("entry_point",), where)
    if "base_input" in row:
        inputs, atol = _release_inputs(row, where)
    else:
        inputs, atol = _hub_inputs(text(row, ("test",), where), where)
    tests: dict[str, Any] = {
        "entry_point": entry_point,
        "preamble": preamble(prompt, entry_point, where),
        "inputs": inputs,
        "atol": atol,
    }
    if task_id == FIND_ZERO:
        tests |= {"check": "polynomial_root", "atol": FIND_ZERO_TOLERANCE}
    return Problem(
        id=task_id,
        benchmark=NAME,
        kind="code",
        prompt=function_prompt(prompt),
        gold=prompt + text(row, ("canonical_solution",), where),
        tests=tests,
        meta={"completion": prompt},
    )


def _release_inputs(row: Mapping[str, Any], where: str) -> tuple[list[list[Any]], float]:
    inputs: list[list[Any]] = []
    for column in ("base_input", "plus_input"):
        # The release writes {} for the one problem without further inputs.
        value = row.get(column) or []
        if not isinstance(value, list) or not all(isinstance(arguments, list) for arguments in value):
            raise RecordError(f"{where}: {column} is not a list of argument lists")
        inputs += value
    if not inputs:
        raise RecordError(f"{where}: no test inputs")
    return distinct(inputs), _tolerance(row.get("atol"), where)


def _hub_inputs(test: str, where: str) -> tuple[list[list[Any]], float]:
    """Inputs and tolerance out of the text of the hub's test: `inputs = [...]` and the last argument of `assertion(...)`."""
    try:
        tree = ast.parse(test)
    except SyntaxError as error:
        raise RecordError(f"{where}: the column 'test' is not Python: {error}") from error
    inputs: list[list[Any]] | None = None
    atol: Any = 0
    try:
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "inputs"
            ):
                inputs = ast.literal_eval(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "assertion":
                atol = ast.literal_eval(node.args[-1])
    except ValueError as error:
        raise RecordError(f"{where}: the inputs are not literals: {error}") from error
    if not inputs or not all(isinstance(arguments, list) for arguments in inputs):
        raise RecordError(f"{where}: the column 'test' holds no list `inputs`")
    try:
        json.dumps(inputs)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where}: the inputs are not JSON: {error}") from error
    return inputs, _tolerance(atol, where)


def _tolerance(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise RecordError(f"{where}: atol is {value!r}, not a tolerance")
    return float(value)


BENCHMARK = Benchmark(
    name=NAME,
    kind="code",
    size=SIZE,
    digest="a6d287fbabae",
    sources={
        "test": Source(local="humanevalplus/HumanEvalPlus.jsonl.gz", hub="evalplus/humanevalplus", hub_split="test")
    },
    parse=parse,
)
