"""Tests of programs in a user's file: what cannot be graded is said when they are read, by key, with what is right."""

from typing import Any

import pytest

from evaluation.custom_problems import program_tests
from evaluation.records import RecordError

GOLD = "def f(x):\n    return x + 1"
ASSERTS = {"entry_point": "f", "asserts": ["assert f(1) == 2"]}
INPUTS = {"entry_point": "f", "inputs": [[1], [2]]}
CASES = {"cases": [{"input": "1", "output": "2"}]}

RIGHT: dict[str, dict[str, Any]] = {
    "asserts": ASSERTS,
    "asserts with all there is": ASSERTS | {"preamble": "import re", "setup": "import math"},
    "asserts that are no equations": {"entry_point": "f", "asserts": ["assert abs(f(1) - 2) < 1", "assert not f(-1)"]},
    "inputs": INPUTS,
    "inputs with all there is": INPUTS | {"preamble": "import re", "setup": "", "atol": 1e-6, "check": "same_set"},
    "no arguments": {"entry_point": "f", "inputs": [[]]},
    "a second reference": INPUTS | {"also_right": "def f(x): return x"},
    "a root": {"entry_point": "f", "inputs": [[[1.0, 2]]], "check": "polynomial_root", "atol": 1e-4},
    "typed inputs": {"entry_point": "f", "typed_inputs": ["l", ["l", "i3"]]},
    "recorded inputs": {"entry_point": "f", "recorded": "def check(candidate): candidate(1)"},
    "cases": CASES,
    "a value of a function": {"cases": [{"input": '"a"', "output": '"xyz"'}], "function": "f"},
    "numbers in one of the outputs": {
        "cases": [{"input": "1", "output": "no"}, {"input": "2", "output": "1.5"}],
        "comparison": "floats",
        "tolerance": 0.1,
    },
    "a checker with more than it needs": CASES | {"checker": "def check(i, o, e, strict=False): return o == e"},
    "a checker of any arguments": CASES | {"checker": "def check(*texts): return True"},
    "a checker that is made": CASES | {"checker": "from operator import eq\ncheck = lambda i, o, e: eq(o, e)"},
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": (INPUTS | {"inputs": []}, r"inputs is \[\], and has to be a list of at least one list of arguments"),
    "no asserts": (ASSERTS | {"asserts": []}, r"asserts is \[\], and has to be a list of at least one assert"),
    "arguments not in a list": (
        INPUTS | {"inputs": [[1], 2]},
        r"inputs: number 2 is 2, and has to be a list of arguments, also of one: \[2\]",
    ),
    "an assert that is no text": (ASSERTS | {"asserts": [1]}, "asserts: number 1 is 1, and has to be the text"),
    "inputs of null": (INPUTS | {"inputs": None}, "needs asserts or inputs, one of them, and there is neither"),
    "asserts of null": (ASSERTS | {"asserts": None}, "needs asserts or inputs, one of them, and there is neither"),
    "both": (ASSERTS | INPUTS, "one of them, and there are asserts and inputs"),
    "a number as setup": (ASSERTS | {"setup": 5}, "setup is 5, and has to be text: Python"),
    "a setup that is no Python": (ASSERTS | {"setup": "from math import"}, "setup is not Python"),
    "a preamble that is no Python": (INPUTS | {"preamble": "import"}, "preamble is not Python"),
    "a setup for inputs": (INPUTS | {"setup": "import re"}, "setup is for asserts; .* is the preamble"),
    "text as tolerance": (INPUTS | {"atol": "x"}, "atol is 'x', and has to be a number from 0 up"),
    "a negative tolerance": (INPUTS | {"atol": -1}, "atol is -1, and has to be"),
    "no tolerance at all": (INPUTS | {"atol": float("nan")}, "atol is nan, and has to be"),
    "a tolerance for asserts": (ASSERTS | {"atol": 0.1}, "atol: is for inputs"),
    "text in place of asserts": (ASSERTS | {"asserts": "assert f(1) == 2"}, "asserts is 'assert f.*has to be a list"),
    "text in place of inputs": (INPUTS | {"inputs": "12"}, "inputs is '12', and has to be a list"),
    "texts in place of arguments": (INPUTS | {"inputs": ["1", "2"]}, r"inputs: number 1 is '1', .* \[\"1\"\]"),
    "an unknown key": (INPUTS | {"imputs": [[1]]}, "unknown imputs; tests of an entry_point have also_right, asserts"),
    "no name": (INPUTS | {"entry_point": "not a name"}, "entry_point is 'not a name', and has to be the name"),
    "a number as name": (INPUTS | {"entry_point": 3}, "entry_point is 3, and has to be the name"),
    "no assert": (ASSERTS | {"asserts": ["f(1) == 2"]}, "asserts: number 1: not one assert statement"),
    "an assert of nothing": (ASSERTS | {"asserts": ["assert 1 == 1"]}, "number 1: an assert that cannot be taken"),
    "an assert with half a pair": (ASSERTS | {"asserts": ["assert f('\ud83d') == 1"]}, "number 1: not an assert"),
    "a check that is unknown": (INPUTS | {"check": "fuzzy"}, "check is 'fuzzy', not one of polynomial_root"),
    "a root within nothing": (INPUTS | {"check": "polynomial_root"}, "polynomial_root needs atol"),
    "a root of no polynomial": (INPUTS | {"check": "polynomial_root", "atol": 1e-4}, "number 1 has no coefficients"),
    "a second reference of another": (INPUTS | {"also_right": "def g(x): return x"}, "also_right does not define f"),
    "typed inputs that are none": ({"entry_point": "f", "typed_inputs": ["l", 3]}, "typed_inputs cannot be read"),
    "a test that checks nothing": ({"entry_point": "f", "recorded": "x = 1"}, "recorded defines no check"),
    "a function without a name": (CASES | {"function": "not a name"}, "function is 'not a name', and no function has"),
    "a value that is no JSON": (
        {"cases": [{"input": "1", "output": "xyz"}], "function": "f"},
        "case 1: output is 'xyz', and of a function it has to be the value as JSON",
    ),
    "floats without a number": (
        {"cases": [{"input": "1", "output": "abc"}], "comparison": "floats", "tolerance": 0.1},
        "comparison is floats, and no output has a number: 'abc'",
    ),
    "a checker of one argument": (CASES | {"checker": "def check(o): return True"}, "take three arguments: input,"),
    "a checker of four arguments": (CASES | {"checker": "def check(a, b, c, d): return True"}, "take three arguments"),
    "a checker with a name to give": (CASES | {"checker": "def check(a, b, c, *, d): return 1"}, "take three"),
    "a checker to be awaited": (
        CASES | {"checker": "async def check(i, o, e): return o == e"},
        "it is async, or yields",
    ),
    "a checker that yields": (CASES | {"checker": "def check(i, o, e):\n if o: yield 1"}, "it is async, or yields"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_tests_that_can_be_graded_are_taken_as_they_are(name: str) -> None:
    assert program_tests(RIGHT[name], "x", GOLD) == RIGHT[name]


@pytest.mark.parametrize("name", WRONG)
def test_tests_that_cannot_be_graded_are_refused_by_key(name: str) -> None:
    tests, message = WRONG[name]
    with pytest.raises(RecordError, match=f"(?s)^mine:3: tests: .*{message}"):
        program_tests(tests, "mine:3", GOLD)


def test_what_a_table_has_for_a_key_that_a_row_lacks_is_left_out() -> None:
    assert program_tests(ASSERTS | {"inputs": None, "setup": None, "atol": None}, "x", GOLD) == ASSERTS


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ("def g(x):\n    return x", "the reference program does not define f, the entry_point"),
        ("def f(x) return x", "the reference program is not Python"),
    ],
)
def test_a_reference_program_defines_what_is_tested(gold: str, message: str) -> None:
    with pytest.raises(RecordError, match=f"x: tests: {message}"):
        program_tests(ASSERTS, "x", gold)
    assert program_tests(ASSERTS, "x") == ASSERTS  # of a demonstration, which has none
    for other in ("f = lambda x: x + 1", "from math import floor as f", "class f: pass", "from math import *"):
        assert program_tests(ASSERTS, "x", other) == ASSERTS
