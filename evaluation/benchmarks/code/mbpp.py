"""MBPP (Austin et al., 2021, arXiv:2108.07732): short Python functions, each with three asserts.

Two sets: the 500 of the test split (task ids 11 to 510), and the 427 that its authors checked by hand and edited
(sanitized MBPP).
"""

import ast
import warnings
from collections.abc import Container, Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import program_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

NAME = "mbpp"
SIZE = 500
TEST_IDS = range(11, 511)
SANITIZED = "mbpp_sanitized"
SANITIZED_SIZE = 427


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: task_id, text (or prompt), code, test_list, and where there are any test_setup_code and test_imports.

    The file of all 974 problems and the hub's test split yield the same 500.
    """
    return check_set(_problems(NAME, rows, TEST_IDS), SIZE, NAME)


def parse_sanitized(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: task_id, prompt, code, test_list, test_imports. The hub spreads the 427 problems over all its splits."""
    return check_set(_problems(SANITIZED, rows), SANITIZED_SIZE, SANITIZED)


def _problems(name: str, rows: Iterable[Mapping[str, Any]], ids: Container[int] | None = None) -> list[Problem]:
    """The problems with these ids (None: all), ordered by them."""
    problems = []
    for number, row in enumerate(rows, start=1):
        task_id = row.get("task_id")
        if not isinstance(task_id, int):
            raise RecordError(f"{name}, row {number}: task_id is {task_id!r}, not an integer")
        if ids is None or task_id in ids:
            problems.append(_problem(name, task_id, row))
    return sorted(problems, key=lambda problem: int(problem.id))


def _problem(name: str, task_id: int, row: Mapping[str, Any]) -> Problem:
    where = f"{name} task {task_id}"
    tests = row.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise RecordError(f"{where}: test_list is not a list of asserts")
    program = text(row, ("code",), where)
    asserts = [test.replace("\r\n", "\n").strip() for test in tests]
    # Imports that the asserts need (math.isclose), and objects they name (a tree built with the program's own class).
    code = str(row.get("test_setup_code") or "").replace("\r\n", "\n")
    setup = "\n".join([*(row.get("test_imports") or []), code]).strip()
    question = text(row, ("text", "prompt"), where).strip()
    return Problem(
        id=str(task_id),
        benchmark=name,
        kind="code",
        prompt=program_prompt(f"{question}\n\nYour code should pass these tests:\n\n" + "\n".join(asserts)),
        gold=program,
        tests={"entry_point": _entry_point(program, asserts, where), "setup": setup, "asserts": asserts},
        meta={"completion": docstring(question, asserts)},
    )


def docstring(question: str, examples: Iterable[str]) -> str:
    """The beginning of a program for models without a chat template: a docstring with the task and what must hold."""
    return '"""\n' + "\n".join([question, *examples]) + '\n"""\n'


def _entry_point(program: str, asserts: list[str], where: str) -> str:
    """The function that every assert calls and the reference program defines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some programs hold "\\w" where they should hold r"\\w"
            defined = {node.name for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)}
            trees = [ast.parse(test) for test in asserts]
    except SyntaxError as error:
        raise RecordError(f"{where}: the program or an assert does not parse: {error}") from error
    calls = [[node.func for node in ast.walk(tree) if isinstance(node, ast.Call)] for tree in trees]
    names = defined.intersection(*({f.id for f in functions if isinstance(f, ast.Name)} for functions in calls))
    if len(names) != 1:
        raise RecordError(f"{where}: the asserts do not all call one function of the program (found {sorted(names)})")
    return names.pop()


BENCHMARK = Benchmark(
    name=NAME,
    kind="code",
    size=SIZE,
    digest="9a81b461de66",
    sources={
        "test": Source(
            local="mbpp/mbpp.jsonl.gz", hub="google-research-datasets/mbpp", hub_config="full", hub_split="test"
        )
    },
    parse=parse,
)

SANITIZED_BENCHMARK = Benchmark(
    name=SANITIZED,
    kind="code",
    size=SANITIZED_SIZE,
    digest="243c1f5ee278",
    sources={
        "test": Source(
            local="mbpp/sanitized-mbpp.json.gz",
            hub="google-research-datasets/mbpp",
            hub_config="sanitized",
            hub_split="train+test+validation+prompt",
        )
    },
    parse=parse_sanitized,
)
