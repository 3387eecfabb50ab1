"""What can be known to be wrong of a program's tests before any program is run: for tests that a user's file holds.

What is let through here the grader takes (see `evaluation.graders.code`). Tests of the benchmarks of this package come
from modules that make them, and are not read here.
"""

import ast
import json
import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

from evaluation.graders.asserts import ReferenceFailed, take_apart
from evaluation.graders.programs.tests import BadTests, bound_names, case_tests
from evaluation.graders.reachable import UNPARSABLE, syntax_tree
from evaluation.sandbox.values import MalformedValue, decode

FORMS = ("asserts", "inputs", "typed_inputs", "recorded")
"""What the entry point is tested by: one of these."""
SOURCES = ("preamble", "setup", "recorded", "also_right")
CHECKS = ("polynomial_root", "same_set", "not_none")
KEYS = {"entry_point", *FORMS, *SOURCES, "atol", "check"}
NOT_FOR_ASSERTS = ("also_right", "atol", "check")
_NUMBER = re.compile(r"\d|\b(?:inf|infinity|nan)\b", re.IGNORECASE)


def checked_cases(tests: Mapping[str, Any]) -> None:
    """Check tests by cases: their rules, and what is expected. Raises `BadTests`."""
    rules = case_tests(tests)
    outputs = [case["output"] for case in tests.get("cases", ())]
    if rules.function is not None:
        for number, output in enumerate(outputs, start=1):
            try:
                json.loads(output)
            except (ValueError, RecursionError) as error:
                what = f"case {number}: output is {output!r:.60}, and of a function it has to be the value as JSON"
                raise BadTests(f"{what} ({error}); text is in quotation marks there") from None
    if outputs and rules.comparison == "floats" and rules.checker is None and not any(map(_NUMBER.search, outputs)):
        raise BadTests(f"comparison is floats, and no output has a number: {outputs[0]!r:.60}; leave it out for text")


def checked_calls(tests: Mapping[str, Any], program: str) -> dict[str, Any]:
    """The tests of an entry point, without what is null in them (a table's columns hold that for what a row lacks).

    Args:
        tests: an object with `entry_point`.
        program: the reference program; "" where there is none, as for a demonstration.

    Raises:
        BadTests: a key is unknown, missing or out of place, or holds what the grader cannot use, or the reference
            program is none, or does not define the entry point. The message names the key and says what is right.
    """
    if unknown := sorted(map(str, set(tests) - KEYS)):
        raise BadTests(f"unknown {', '.join(unknown)}; tests of an entry_point have {', '.join(sorted(KEYS))}")
    kept = {name: value for name, value in tests.items() if value is not None}
    name = kept.get("entry_point")
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise BadTests(f"entry_point is {name!r:.60}, and has to be the name of a function")
    found = [form for form in FORMS if form in kept]
    if len(found) != 1:
        what = f"there are {' and '.join(found)}" if found else "there is neither"
        raise BadTests(f"an entry_point needs asserts or inputs, one of them, and {what}")
    for key in SOURCES:
        _check_source(kept.get(key, ""), key)
    if "recorded" in kept and "check" not in bound_names(syntax_tree(kept["recorded"])):
        raise BadTests("recorded defines no check(candidate)")
    if found == ["asserts"]:
        if others := [key for key in NOT_FOR_ASSERTS if key in kept]:
            raise BadTests(f"{', '.join(others)}: is for inputs; an assert says itself what it accepts")
        _check_asserts(kept["asserts"], name)
    else:
        if kept.get("setup"):
            raise BadTests("setup is for asserts; what the inputs need is the preamble, which is run before a program")
        _check_comparison(kept)
        if "recorded" not in kept:
            _check_inputs(kept, found[0])
    for key, source in (("the reference program", program), ("also_right", kept.get("also_right", ""))):
        if source and not {name, "*"} & set(bound_names(_check_source(source, key))):
            raise BadTests(f"{key} does not define {name}, the entry_point")
    return kept


def _check_source(source: Any, key: str) -> ast.Module:
    if not isinstance(source, str):
        raise BadTests(f"{key} is {source!r:.60}, and has to be text: Python")
    try:
        return syntax_tree(source)
    except UNPARSABLE as error:
        raise BadTests(f"{key} is not Python: {error}") from None


def _check_asserts(asserts: Any, entry_point: str) -> None:
    if not isinstance(asserts, list) or not asserts:
        raise BadTests(f"asserts is {asserts!r:.60}, and has to be a list of at least one assert statement")
    for number, statement in enumerate(asserts, start=1):
        if not isinstance(statement, str):
            raise BadTests(f"asserts: number {number} is {statement!r:.60}, and has to be the text of an assert")
        try:
            take_apart(statement, entry_point)
        except ReferenceFailed as error:
            raise BadTests(f"asserts: number {number}: {error}") from None
        except UNPARSABLE as error:
            raise BadTests(f"asserts: number {number}: not an assert: {statement!r:.60}: {error}") from None


def _check_inputs(tests: Mapping[str, Any], key: str) -> None:
    value = tests[key]
    if key == "typed_inputs":
        try:
            value = decode(value)
        except (MalformedValue, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            raise BadTests(f"typed_inputs cannot be read (evaluation.sandbox.values has their form): {error}") from None
    if not isinstance(value, list) or not value:
        raise BadTests(f"{key} is {value!r:.60}, and has to be a list of at least one list of arguments: [[1], [5]]")
    for number, arguments in enumerate(value, start=1):
        if not isinstance(arguments, list | tuple):
            raise BadTests(
                f"{key}: number {number} is {arguments!r:.60}, and has to be a list of arguments, also of one: "
                f"[{json.dumps(arguments, default=repr):.60}]"
            )
        if tests.get("check") == "polynomial_root" and not _are_numbers(arguments[0] if arguments else None):
            raise BadTests(f"{key}: number {number} has no coefficients, a list of numbers, for check: polynomial_root")


def _check_comparison(tests: Mapping[str, Any]) -> None:
    atol, check = tests.get("atol", 0.0), tests.get("check")
    if not _are_numbers([atol]) or not 0 <= atol < math.inf:
        raise BadTests(f"atol is {atol!r:.60}, and has to be a number from 0 up")
    if check is not None and check not in CHECKS:
        raise BadTests(f"check is {check!r:.60}, not one of {', '.join(CHECKS)}")
    if check == "polynomial_root" and "atol" not in tests:
        raise BadTests("check: polynomial_root needs atol")


def _are_numbers(values: Any) -> bool:
    if not isinstance(values, list | tuple):
        return False
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
