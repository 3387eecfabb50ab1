"""Tests of programming tasks in training data: an object as the grader takes it, or a list of asserts like MBPP's."""

import ast
import builtins
import json
import warnings
from collections.abc import Mapping
from typing import Any

from evaluation.custom_problems import program_tests
from evaluation.records import RecordError
from stages.data.cases import are_cases, cases_of, checked, is_empty, joined
from stages.data.values import value_of
from stages.harness.context import StageError
from stages.harness.own_files import AskedColumns


def row_tests(
    row: Mapping[str, Any],
    columns: AskedColumns,
    program: str,
    label: str,
    number: int,
    *,
    language: str | None = None,
    demonstrated: bool = False,
) -> dict[str, Any]:
    """The tests in a row's columns; none where no column is named. Raises `StageError`.

    Args:
        row: the row.
        columns: name those with tests and set-up.
        program: the reference program, or "" where there is none.
        label: the setting that names the source, for messages.
        number: the row's.
        language: of tests by cases that do not say theirs; None is Python.
        demonstrated: tests that are no cases may do without it: they are for a demonstration.
    """
    if columns.tests is None:
        return {}
    setup = None if columns.setup is None else value_of(row, columns.setup, label, number)
    where, named = f"{label}: row {number}", columns.tests
    try:
        if isinstance(named, str):
            tests = tests_of(value_of(row, named, label, number), program, setup, where)
        else:
            values = (value_of(row, column, label, number) for column in named)
            # One of them may be empty: some problems have no private tests.
            tests = joined([tests_of(v, program, setup, where) for v in values if v and not is_empty(v)], where)
        if language is not None and "language" not in tests:
            tests = _in_language(tests, language, where)
        if not program and not demonstrated and "cases" not in tests:
            raise RecordError(f"{where}: tests that are no cases need the reference program: columns.answer")
    except RecordError as error:
        raise StageError(
            str(error), "Correct or remove that row; docs/own.md and docs/data.md show the forms of tests."
        ) from None
    return tests


def _in_language(tests: dict[str, Any], language: str, where: str) -> dict[str, Any]:
    """The tests, for programs in this language. Raises `RecordError` where they can only be for Python."""
    if language == "python":
        return tests
    if "cases" not in tests:
        raise RecordError(f"{where}: language: {language} is for tests by cases; these are Python")
    return checked({**tests, "language": language}, where)


def tests_of(value: Any, program: str, setup: Any, where: str) -> dict[str, Any]:
    """What `evaluation.graders.code` grades by.

    Args:
        value: an object with `entry_point` and `asserts` or `inputs`, or with cases, in our form or as the usual sets
            have them (`stages.data.cases`); a list of assert statements; or the JSON text of any of these.
        program: the reference program; with a list of asserts, the entry point is the function of it that all of them
            call, or where it is "" the one function that all of them call and Python does not have.
        setup: code that runs before the asserts of a list, as text or a list of lines; None where there is none.

    Raises:
        RecordError: the value is neither, or no function, or more than one, can be the entry point.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise RecordError(
                f"{where}: tests are text that is not JSON: {value!r:.80}; "
                "needed are an object, or a list of asserts or of cases"
            ) from None
    by_cases = are_cases(value)
    if by_cases or not isinstance(value, list):
        tests = cases_of(value, where) if by_cases else program_tests(value, where, program)
        if setup is not None:
            raise RecordError(
                f"{where}: columns.setup is for a list of asserts; an object of tests has a setup of its own"
            )
        return tests
    asserts = [_assert(test, where) for test in value]
    if not asserts:
        raise RecordError(f"{where}: the list of asserts is empty")
    return {"entry_point": _entry_point(program, asserts, where), "setup": _setup(setup, where), "asserts": asserts}


def _assert(test: Any, where: str) -> str:
    if not isinstance(test, str):
        raise RecordError(f"{where}: a test is {test!r:.80}, expected the text of an assert")
    source = test.replace("\r\n", "\n").strip()
    body = _parsed(source, f"{where}: test {source!r:.80}").body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise RecordError(f"{where}: test {source!r:.80} is not one assert statement")
    return source


def _setup(setup: Any, where: str) -> str:
    lines = setup if isinstance(setup, list) else [setup or ""]
    if not all(isinstance(line, str) for line in lines):
        raise RecordError(f"{where}: the setup is {setup!r:.80}, expected text or a list of lines")
    source = "\n".join(lines).replace("\r\n", "\n").strip()
    _parsed(source, f"{where}: the setup")
    return source


def _entry_point(program: str, asserts: list[str], where: str) -> str:
    """The function that the reference program defines and every assert calls; "": the one that every assert calls."""
    if not program:
        called = set[str].intersection(*map(_called, asserts)) - set(dir(builtins))
        if len(called) != 1:
            raise RecordError(f"{where}: the asserts must all call one function, and they call {sorted(called)}")
        return called.pop()
    defined = {
        node.name
        for node in _parsed(program, f"{where}: the reference program").body
        if isinstance(node, ast.FunctionDef)
    }
    names = defined.intersection(*(_called(test) for test in asserts))
    if len(names) != 1:
        found = f"these: {', '.join(sorted(names))}" if names else "none"
        raise RecordError(
            f"{where}: the asserts must all call one function that the program defines, and they call {found}"
        )
    return names.pop()


def _called(source: str) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def _parsed(source: str, what: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some programs hold "\\w" where they should hold r"\\w"
            return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise RecordError(f"{what} is not Python: {error}") from error
