"""Tests by cases as the usual sets of programming tasks hold them, as `evaluation.graders.code` takes them.

| form | sets |
|---|---|
| `{"inputs": [...], "outputs": [...], "fn_name": "f"}` | APPS, TACO (`input_output`), and what is made of them |
| `{"input": [...], "output": [...]}` | CodeContests (`public_tests`, `private_tests`) |
| `[{"input": ..., "output": ..., "testtype": "stdin"}, ...]` | LiveCodeBench, and what is made of it |

With a name of a function, an input is a list of its arguments, or text with one JSON value a line, and an output its
value, or JSON; else an input is text, or a list of lines, and so is an output. In APPS and TACO, values of functions
may stand in a list of one: where all do, the value and the list are both right, as in their own grader. Beside inputs
and outputs may stand the `RULES` of tests by cases.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.benchmarks.program_tests import checked_cases
from evaluation.graders.programs.tests import BadTests
from evaluation.records import RecordError

PAIRS = (("inputs", "outputs"), ("input", "output"))
NAMES = ("fn_name", "func_name")
RULES = ("comparison", "tolerance", "checker", "time_limit_s", "memory_mib", "language")


def are_cases(value: Any) -> bool:
    """Whether the value is of one of the forms."""
    if isinstance(value, Mapping):
        return any(set(pair) <= set(value) for pair in PAIRS)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def cases_of(value: Any, where: str) -> dict[str, Any]:
    """The tests. Raises `RecordError` where an input or output is not as it should be."""
    inputs, outputs, function = _parts(value, where)
    if len(inputs) != len(outputs):
        raise RecordError(f"{where}: {len(inputs)} inputs and {len(outputs)} outputs")
    called = function is not None and all(isinstance(one, list) for one in inputs)
    if called:
        pairs = [
            ("\n".join(map(json.dumps, one)), json.dumps(other)) for one, other in zip(inputs, outputs, strict=True)
        ]
    else:
        pairs = [(_text(one, where), _text(other, where)) for one, other in zip(inputs, outputs, strict=True)]
    tests: dict[str, Any] = {"cases": [{"input": one, "output": other} for one, other in pairs]}
    if isinstance(value, Mapping):
        tests |= {name: value[name] for name in RULES if value.get(name) is not None}
    if function is not None:
        tests |= {"function": function, "star_imports": True}
        if called and all(isinstance(other, list) and len(other) == 1 for other in outputs):
            tests["wrapped"] = True
    return checked(tests, where)


def is_empty(value: Any) -> bool:
    """Whether a column holds tests of one of the forms, but none."""
    if isinstance(value, str):
        return value.strip() in ("[]", "{}", "null")
    return isinstance(value, Mapping) and any(set(pair) <= set(value) and not value[pair[0]] for pair in PAIRS)


def joined(parts: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """The tests of several columns as those of one. Raises `RecordError` where they differ in more than their cases."""
    if not parts:
        raise RecordError(f"{where}: the columns of tests are all empty")
    rules = [{name: value for name, value in part.items() if name != "cases"} for part in parts]
    if any(one != rules[0] for one in rules) or not all("cases" in part for part in parts):
        raise RecordError(f"{where}: the columns of tests are not of one kind")
    return checked({"cases": [case for part in parts for case in part["cases"]], **rules[0]}, where)


def checked(tests: dict[str, Any], where: str) -> dict[str, Any]:
    """The tests, which a grader can use. Raises `RecordError` otherwise."""
    try:
        checked_cases(tests)
    except BadTests as error:
        raise RecordError(f"{where}: tests: {error}") from error
    return tests


def _parts(value: Any, where: str) -> tuple[list[Any], list[Any], str | None]:
    """Inputs, outputs, and the function's name."""
    if isinstance(value, Mapping):
        first, second = next(pair for pair in PAIRS if set(pair) <= set(value))
        inputs, outputs = value[first], value[second]
        if not isinstance(inputs, list) or not isinstance(outputs, list):
            raise RecordError(f"{where}: {first} and {second} are {inputs!r:.40} and {outputs!r:.40}, expected lists")
        return inputs, outputs, _name([value], where)
    if not all(isinstance(row, Mapping) and {"input", "output"} <= set(row) for row in value):
        raise RecordError(f"{where}: a list of tests has an entry without input and output")
    return [row["input"] for row in value], [row["output"] for row in value], _name(value, where)


def _name(rows: Sequence[Mapping[str, Any]], where: str) -> str | None:
    found = {name for row in rows for entry in NAMES if (name := row.get(entry) or _metadata(row).get(entry))}
    if len(found) > 1 or not all(isinstance(name, str) for name in found):
        raise RecordError(f"{where}: tests name {len(found)} functions: {', '.join(map(repr, found))}")
    calls = {
        str(row[kind]).startswith("function")
        for row in rows
        for kind in ("testtype", "type")
        if row.get(kind) is not None
    }
    if len(calls) > 1:
        raise RecordError(f"{where}: some tests call a function, and some do not")
    if not found and True in calls:
        raise RecordError(f"{where}: tests of a function that say nowhere which ({', '.join(NAMES)})")
    return next(iter(found), None)


def _metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = row.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _text(value: Any, where: str) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise RecordError(f"{where}: an input or output is {value!r:.60}, expected text or a list of lines")
    return value
