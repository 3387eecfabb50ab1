"""HumanEval (Chen et al., 2021, arXiv:2107.03374): 164 functions to complete from signature and docstring.

Each row's test is a Python function `check(candidate)`. Its asserts are taken out one by one, so that they are graded
as MBPP's are: the program never sees an expected value. Five tests make their inputs in a loop; there, the reference
program is called by the test, and what it is called with becomes the inputs.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import function_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

NAME = "humaneval"
SIZE = 164
FIND_ZERO = "HumanEval/32"
"""Asks for a root of a polynomial. Any root is right, so the value is put into the polynomial, not compared."""


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: task_id, prompt, canonical_solution, entry_point, test."""
    return check_set([to_problem(NAME, number, row, _tests) for number, row in enumerate(rows, start=1)], SIZE, NAME)


def to_problem(
    benchmark: str, number: int, row: Mapping[str, Any], tests_of: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> Problem:
    """The problem in a row of HumanEval or of HumanEval+, which differ in their tests alone.

    Args:
        benchmark: the benchmark's name.
        number: the row's number, counted from 1, for messages.
        tests_of: `(row, where)` -> what the grader needs beside the function's name and preamble.

    Raises:
        RecordError: the row is broken.
    """
    task_id = text(row, ("task_id",), f"{benchmark}, row {number}")
    where = f"{benchmark} {task_id}"
    prompt, entry_point = text(row, ("prompt",), where), text(row, ("entry_point",), where)
    tests = {"entry_point": entry_point, "preamble": preamble(prompt, entry_point, where), **tests_of(row, where)}
    if task_id == FIND_ZERO:
        tests |= {"check": "polynomial_root", "atol": 1e-4}
    return Problem(
        id=task_id,
        benchmark=benchmark,
        kind="code",
        prompt=function_prompt(prompt),
        gold=prompt + text(row, ("canonical_solution",), where),
        tests=tests,
        meta={"completion": prompt},
    )


def preamble(prompt: str, entry_point: str, where: str) -> str:
    """Imports and helpers of the prompt: everything before the last definition of `entry_point`."""
    definitions = list(re.finditer(rf"^def {re.escape(entry_point)}\(", prompt, re.MULTILINE))
    if not definitions:
        raise RecordError(f"{where}: the prompt does not define {entry_point}")
    return prompt[: definitions[-1].start()].strip()


def _tests(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`setup` and `asserts` of a test without loops; `recorded`, the test itself, of one with them."""
    test, entry_point = text(row, ("test",), where), text(row, ("entry_point",), where)
    try:
        body = ast.parse(test).body
    except SyntaxError as error:
        raise RecordError(f"{where}: the column 'test' is not Python: {error}") from error
    check = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    if check is None:
        raise RecordError(f"{where}: the column 'test' defines no check(candidate)")
    if any(isinstance(node, ast.For | ast.While) for node in ast.walk(check)):
        return {"recorded": test.strip(), "atol": 0.0}
    for node in ast.walk(check):
        if isinstance(node, ast.Name) and node.id == "candidate":  # the test's name for the function
            node.id = entry_point
    setup, asserts = [], []
    for statement in check.body:
        source = ast.unparse(statement)
        if not isinstance(statement, ast.Assert):
            setup.append(source)
        elif re.search(rf"\b{re.escape(entry_point)}\(", source):  # the others read `assert True`
            asserts.append(source)
    if not asserts:
        raise RecordError(f"{where}: the column 'test' calls its candidate nowhere")
    return {"setup": "\n".join(setup), "asserts": asserts}


BENCHMARK = Benchmark(
    name=NAME,
    kind="code",
    size=SIZE,
    digest="c334f3e23633",
    sources={"test": Source(local="humaneval/HumanEval.jsonl.gz", hub="openai/openai_humaneval", hub_split="test")},
    parse=parse,
)
