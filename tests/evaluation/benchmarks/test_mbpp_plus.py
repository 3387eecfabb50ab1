"""MBPP+: types that JSON lost, the release's and the hub's form, and how results are compared."""

import gzip
import json
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


@pytest.mark.parametrize(
    ("check", "gold", "candidate", "verdict"),
    [
        ("same_set", "return [1, 2]", "return (2, 1, 1)", "correct"),
        ("same_set", "return [1, 2]", "return [1]", "wrong"),
        ("same_set", "return [[1]]", "return [[1]]", "correct"),
        ("not_none", "import re; return re.match('a', 'a')", "return 'found'", "correct"),
        ("not_none", "import re; return re.match('a', 'a')", "return None", "wrong"),
        ("not_none", "import re; return re.match('a', 'b')", "return None", "correct"),
    ],
)
def test_results_are_compared_as_the_task_asks(check: str, gold: str, candidate: str, verdict: str) -> None:
    tests = {"entry_point": "f", "preamble": "", "typed_inputs": ["l", ["l", "i1"]], "atol": 0.0, "check": check}
    problem = Problem("1", "test", "code", "?", f"def f(x): {gold}", tests)
    with Sandbox() as sandbox:
        assert code.CodeGrader(sandbox, 4.0).grade(problem, f"def f(x): {candidate}")[0] == verdict


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
