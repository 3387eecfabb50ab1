"""MBPP+ (Liu et al., 2023, arXiv:2305.01210): 378 problems of sanitized MBPP with about 35 times as many test inputs.

The release's JSON has no tuples, sets or complex numbers; they are restored here, task by task. A program is right when
it is right on the inputs of MBPP (base) and on all the further ones (plus).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.code.evalplus import distinct, read_hub_test, release_inputs, tolerance
from evaluation.benchmarks.code.mbpp import docstring
from evaluation.benchmarks.prompts import program_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError
from evaluation.sandbox.values import encode

NAME = "mbpp_plus"
SIZE = 378

SAME_SET = {
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array",
    "find_dissimilar", "Diff",
}  # fmt: skip
"""Functions whose results EvalPlus compares as sets: the tasks ask for elements, not for their order."""
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
"""Functions that may return a match object: what counts is whether there is one, or True or False."""
ALSO_RIGHT = {
    "digit_distance_nums": """
def digit_distance_nums(n1, n2):
    width = max(len(str(n1)), len(str(n2)))
    return sum(abs(int(one) - int(other)) for one, other in zip(str(n1).zfill(width), str(n2).zfill(width)))
""",
    "surface_Area": """
def surface_Area(b, h):
    return round(b**2 + 2 * b * ((b / 2) ** 2 + h**2) ** 0.5)
""",
}
"""Second readings that EvalPlus accepts: the shorter number filled up with zeros; the pyramid's own height, where the
reference takes that of its sides, rounded."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tuples_within(value: Any) -> Any:
    return [_tuple(item) for item in value] if isinstance(value, list) else value


def _deep_tuple(value: Any) -> Any:
    return tuple(_deep_tuple(item) for item in value) if isinstance(value, list) else value


def _same(value: Any) -> Any:
    return value


Convert = Callable[[Any], Any]
_TYPES: dict[tuple[Convert, ...], set[int]] = {
    (_tuple,): {
        2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809,
    },
    (_tuples_within,): {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780},
    (lambda value: _tuple(_tuples_within(value)),): {259, 278, 401, 445},
    (_deep_tuple,): {580, 615, 791},
    (complex,): {252},
    # The release's own canonical inputs hold {} where there is nothing.
    (lambda value: [set(item) if item else {} for item in value],): {115},
    (_tuples_within, _same): {75, 413, 444, 753},
    (_same, _tuple): {106, 750},
    (_tuple, _same): {250, 405, 446, 617, 720, 763, 808},
    (_tuple, _same, _same): {307},
    (lambda value: {key: tuple(item) for key, item in value.items()}, _same, _same): {722},
    (float, complex): {124},
}  # fmt: skip
"""Conversion of all arguments, or of each -> the tasks that it restores the types of."""


def typed_arguments(task: int, arguments: list[Any]) -> list[Any]:
    """One argument list of the release with the types that the task's program expects."""
    converts = next((converts for converts, tasks in _TYPES.items() if task in tasks), (_same,))
    if len(converts) == 1:
        converts *= len(arguments)
    return [convert(argument) for convert, argument in zip(converts, arguments, strict=True)]


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: task_id, prompt, and those of either source.

    The release ("Mbpp/2"): entry_point, canonical_solution, base_input, plus_input, atol. The hub (2): code, test_list,
    test.
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
        inputs, atol = release_inputs(row, where, partial(typed_arguments, int(task_id))), row.get("atol")
    else:
        inputs, called, atol = read_hub_test(text(row, ("test",), where), where)
        if called is None:
            raise RecordError(f"{where}: the column 'test' holds no list `inputs` that `assertion` is called with")
        entry_point = called
        question = text(row, ("prompt",), where).strip() + "\n" + str((row.get("test_list") or [""])[0]).strip()
    tests: dict[str, Any] = {
        "entry_point": entry_point,
        "preamble": "",
        "typed_inputs": ["l", *distinct(encode(inputs)[1:])],
        "atol": tolerance(atol, where),
    }
    if entry_point in SAME_SET:
        tests["check"] = "same_set"
    elif entry_point in NOT_NONE:
        tests["check"] = "not_none"
    elif entry_point in ALSO_RIGHT:
        tests["also_right"] = ALSO_RIGHT[entry_point]
    return Problem(
        id=f"Mbpp/{task_id}",
        benchmark=NAME,
        kind="code",
        prompt=program_prompt(question),
        gold=text(row, ("canonical_solution", "code"), where),
        tests=tests,
        meta={"completion": docstring(question, [])},
    )


BENCHMARK = Benchmark(
    name=NAME,
    kind="code",
    size=SIZE,
    digest="759a485a98f6",
    sources={"test": Source(local="mbppplus/MbppPlus.jsonl.gz", hub="evalplus/mbppplus", hub_split="test")},
    parse=parse,
)
