"""MBPP+: types that JSON lost, the release's and the hub's form, and how results are compared."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import mbpp_plus
from evaluation.graders import code
from evaluation.loading import load
from evaluation.records import Problem, RecordError
from evaluation.sandbox import Sandbox
from evaluation.sandbox.values import decode

HUB_TEST = (
    "from math import inf\ndef assertion(out, exp, atol): pass\ninputs = [[(1, 2)], [(inf,)]]\nresults = [0]\n"
    "for i in (1,):\n    assertion(f(*inp), exp, 0)\n"
)


def rows(hub: bool = False, **changes: Any) -> list[dict[str, Any]]:
    made = []
    for number in (2, *range(1000, 1377)):
        row: dict[str, Any] = {
            "task_id": number if hub else f"Mbpp/{number}",
            "prompt": '"""\nTake one.\nassert f((1,)) == 1\n"""\n',
        }
        if hub:
            row |= {
                "prompt": "Take one.",
                "code": "def f(x): return x",
                "test_list": ["assert f((1,)) == 1"],
                "test": HUB_TEST,
            }
        else:
            row |= {"entry_point": "f", "canonical_solution": "def f(x): return x", "atol": 0}
            row |= {"base_input": [[[1, 2]]], "plus_input": [[[float("inf")]]]}
        made.append(row)
    made[0] |= changes
    return made


def test_both_forms_give_the_same_problem() -> None:
    release, hub = mbpp_plus.parse("test", rows())[0], mbpp_plus.parse("test", rows(hub=True))[0]
    assert release == hub
    assert decode(release.tests["typed_inputs"]) == [[(1, 2)], [(float("inf"),)]]
    assert json.loads(json.dumps(release.tests)) == release.tests
    assert release.prompt.startswith("Take one.\nassert f((1,)) == 1\n\nPut ")


@pytest.mark.parametrize(
    ("task", "given", "typed"),
    [
        (3, [[1, [2]]], [[1, [2]]]),
        (2, [[1], [2]], [(1,), (2,)]),
        (63, [[[1, 2], [3]]], [[(1, 2), (3,)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (115, [[[1, 1], []]], [[{1}, {}]]),
        (124, ["1", "2j"], [1.0, 2j]),
        (250, [[1], 2], [(1,), 2]),
        (252, ["1+2j"], [1 + 2j]),
        (259, [[[1], [2]], [[3]]], [((1,), (2,)), ((3,),)]),
        (278, [[1, [2, 3]]], [(1, (2, 3))]),
        (307, [[1], 2, 3], [(1,), 2, 3]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (722, [{"a": [1, 2]}, 3, 4], [{"a": (1, 2)}, 3, 4]),
    ],
)
def test_types_are_turned_back(task: int, given: list[Any], typed: list[Any]) -> None:
    assert repr(mbpp_plus.typed_arguments(task, given)) == repr(typed)


@pytest.mark.parametrize(
    ("hub", "change", "message"),
    [
        (False, {"task_id": "two"}, "row 1: task_id is 'two'"),
        (False, {"base_input": [3]}, "Mbpp/2: base_input is not a list of argument lists"),
        (False, {"base_input": [], "plus_input": {}}, "Mbpp/2: no test inputs"),
        (
            False,
            {"task_id": "Mbpp/307", "base_input": [[[1], 2]]},
            "Mbpp/307: base_input has arguments of another shape",
        ),
        (False, {"atol": "0"}, "Mbpp/2: atol is '0'"),
        (True, {"test": "def f(:"}, "Mbpp/2: the column 'test' is not Python"),
        (True, {"test": "inputs = [[1]]"}, "Mbpp/2: the column 'test' holds no list"),
        (True, {"test": "inputs = [[open('x')]]"}, "Mbpp/2: the inputs are not literals"),
    ],
)
def test_a_broken_row_is_named(hub: bool, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        mbpp_plus.parse("test", rows(hub, **change))


@pytest.fixture(scope="module")
def grader() -> Iterator[code.CodeGrader]:
    with Sandbox() as sandbox:
        yield code.CodeGrader(sandbox, 4.0)


DIGITS = "def digit_distance_nums(a, b): return "
MATCH, NO_MATCH = "return re.match('a', 'a')", "return re.match('a', 'b')"


@pytest.mark.parametrize(
    ("check", "gold", "candidate", "verdict"),
    [
        ("same_set", "return [1, 2]", "return (2, 1, 1)", "correct"),
        ("same_set", "return [1, 2]", "return {1.0, 2}", "correct"),
        ("same_set", "return [1, 2]", "return filter(None, [0, 2, 1])", "correct"),
        ("same_set", "return [1, 2]", "return {2: 'a', 1: 'b'}.keys()", "correct"),
        ("same_set", "return [1, 2]", "return [1]", "wrong"),
        ("same_set", "return [1, 2]", "return [1, [2]]", "wrong"),
        ("same_set", "return [1, 2]", "return None", "wrong"),
        ("same_set", "return [1, 2]", "class A(list): __eq__ = lambda s, o: True; return A()", "wrong"),
        *(("not_none", MATCH, answer, "correct") for answer in ("True", "'found'", "1", "0", "[]", "re.match('', '')")),
        *(("not_none", MATCH, answer, "wrong") for answer in ("False", "None", "1 / 0")),
        *(("not_none", NO_MATCH, answer, "correct") for answer in ("None", "False", "1 == 2", "bool([])")),
        *(("not_none", NO_MATCH, answer, "wrong") for answer in ("True", "0", "''", "'Not matched!'", "[]")),
    ],
)
def test_results_are_compared_as_the_task_asks(
    grader: code.CodeGrader, check: str, gold: str, candidate: str, verdict: str
) -> None:
    tests = {"entry_point": "f", "preamble": "", "typed_inputs": ["l", ["l", "i1"]], "atol": 0.0, "check": check}
    source = "import re\ndef f(x):\n    {}"
    candidate = candidate if "return" in candidate else f"return {candidate}"
    problem = Problem("1", "test", "code", "?", source.format(gold), tests)
    assert grader.grade(problem, source.format(candidate.replace("; ", "\n    ")))[0] == verdict


@pytest.mark.parametrize(
    ("task", "source", "verdict"),
    [
        (737, "import re\ndef check_str(s): return bool(re.match('[aeiouAEIOU]', s))", "correct"),
        (737, "def check_str(s): return s[:1].lower() in {*'aeiou'}", "correct"),
        (737, "import re\ndef check_str(s): return re.search('^[aeiouAEIOU]', s)", "correct"),
        (737, "def check_str(s): return s[:1] in {*'aeiou'}", "wrong"),
        (737, "def check_str(s): return True", "wrong"),
        (787, "def text_match_three(s): return 'abbb' in s", "correct"),
        (787, "def text_match_three(s): return 'a' in s", "wrong"),
        (794, "import re\ndef text_starta_endb(s): return re.search('a.*b$', s) is not None", "correct"),
        (794, "def text_starta_endb(s): return s.endswith('b')", "wrong"),
        (558, f"{DIGITS}sum(abs(int(x) - int(y)) for x, y in zip(str(a), str(b)))", "correct"),
        (558, f"{DIGITS}a + b and abs(a % 10 - b % 10) + digit_distance_nums(a // 10, b // 10)", "correct"),
        (558, f"{DIGITS}abs(a - b)", "wrong"),
        (581, "def surface_Area(b, s): return b * b + 2 * b * s", "correct"),
        (581, "import math\ndef surface_Area(b, h): return round(b * b + 2 * b * math.hypot(b / 2, h))", "correct"),
        (581, "def surface_Area(b, h): return b * b + 4 * b * h", "wrong"),
    ],
)  # fmt: skip
def test_real_tasks_take_what_evalplus_takes(
    benchmark_data: Path, grader: code.CodeGrader, task: int, source: str, verdict: str
) -> None:
    [problem] = [p for p in load(mbpp_plus.BENCHMARK, "test", benchmark_data) if p.id == f"Mbpp/{task}"]
    assert grader.grade(problem, source)[0] == verdict


@pytest.mark.slow
def test_real_files(benchmark_data: Path) -> None:
    problems = load(mbpp_plus.BENCHMARK, "test", benchmark_data)
    with gzip.open(benchmark_data / "mbppplus" / "MbppPlus-OriginFmt.jsonl.gz", "rt") as file:  # the hub's form
        hub = mbpp_plus.parse("test", [json.loads(line) for line in file])
    for one, other in zip(problems, hub, strict=True):
        assert (one.id, one.gold.strip()) == (other.id, other.gold.strip())
        assert {k: v for k, v in one.tests.items() if k != "typed_inputs"} == {
            k: v for k, v in other.tests.items() if k != "typed_inputs"
        }
        if one.id not in (
            "Mbpp/124",
            "Mbpp/252",
        ):  # there, a sign of a zero part gets lost in writing a complex number out
            written = [{repr(arguments) for arguments in decode(p.tests["typed_inputs"])} for p in (one, other)]
            assert written[0] == written[1]  # the hub's file leaves repeated inputs out
