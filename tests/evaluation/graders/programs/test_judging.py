"""Programs that read and print, judged by cases. Every one of them really runs, in the sandbox."""

from typing import Any

import pytest

from evaluation.grading import Grader
from evaluation.records import Problem
from evaluation.sandbox import Job, Sandbox
from tests.evaluation.graders.programs.cases import RIGHT, SUM, cases, judge

FAST = (
    "import io, os\nread = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
    "os.write(1, str(sum(map(int, read().split()))).encode())"
)


@pytest.mark.parametrize(
    ("program", "verdict", "detail"),
    [
        (RIGHT, "correct", ""),
        (FAST, "correct", ""),
        ("print(sum(map(int, open(0).read().split())))", "correct", ""),
        ("with open(0) as f: print(sum(map(int, f.read().split())))", "correct", ""),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))\nsys.exit(1)", "correct", ""),
        ("def main():\n    print(eval('+'.join(input().split())))\nif __name__ == '__main__': main()", "correct", ""),
        ("import os\nos.write(1, b'%d' % sum(map(int, input().split())))\nos._exit(0)", "correct", ""),
        (f"import threading\ndef main():\n    {RIGHT.replace(chr(10), '; ')}\nthreading.Thread(target=main).start()",
         "correct", ""),
        ("import atexit\na, b = map(int, input().split())\natexit.register(lambda: print(a + b))", "correct", ""),
        ("import sys\ninput = sys.stdin.readline\nsys.stdout.write(str(sum(map(int, input().split()))))", "correct",
         ""),
        ("a, b = map(int, input().split())\nprint(a - b)", "wrong", "case 1: '-1' instead of '3'"),
        ("a, b = map(int, input().split())\nprint(max(a, a + b) if b < 0 else a + b)", "wrong",
         "case 2: '10' instead of '6'"),
        ("print(3)", "wrong", "case 2: '3' instead of '6'"),
        ("a, b = map(int, input('?').split())\nprint(a + b)", "wrong", "case 1: '?3' instead of '3'"),
        ("a = input()\nb = input()\nprint(a + b)", "wrong", "case 1: EOFError"),
        ("a, b = map(int, input().split())\nprint(a + b)\n1 / 0", "wrong",
         "ZeroDivisionError: division by zero, having printed '3"),
        ("print(1", "wrong", "SyntaxError"),
        ("while True: print('x' * 1000)", "wrong", "File too large"),
        ("while True: print", "timeout", "case 1"),
        ("import os\nprint(3)\nos._exit(1)", "wrong", "ended with exit code 1"),
        ("print(len(bytearray(10**12)))", "wrong", "MemoryError"),
    ],
)  # fmt: skip
def test_verdicts(grader: Grader, program: str, verdict: str, detail: str) -> None:
    result = judge(grader, program)
    assert result.verdict == verdict, result
    assert detail in result.detail


def test_what_a_completion_without_a_program_gets(grader: Grader) -> None:
    problem = Problem("1", "test", "code", "?", "", SUM)
    texts = ["", "The sum.", "```python\na = 1\n```", f"Try this:\n\n```python\n{RIGHT}\n```\n\n```\n3\n```", RIGHT]
    graded = grader.grade([(problem, text, "stop") for text in texts])
    assert [one.verdict for one in graded] == ["no_answer", "no_answer", "no_answer", "correct", "correct"]


@pytest.mark.parametrize(
    ("tests", "output", "verdict"),
    [
        (cases(("", "1 2\n3\n")), "1\n2\n\n3", "correct"),
        (cases(("", "1 2\n3\n")), "1 23", "wrong"),
        (cases(("", "1 2\n"), comparison="exact"), "1 2", "correct"),
        (cases(("", "1 2\n"), comparison="exact"), "1  2\n", "wrong"),
        (cases(("", "1 2\n3\n"), comparison="lines"), " 1.0 2e0 \n3\n\n", "correct"),
        (cases(("", "1 2\n3\n"), comparison="lines"), "1 2 3", "wrong"),
        (cases(("", "yes\n0.1\n"), comparison="lines"), "yes\n0.1000001\n", "wrong"),
        (cases(("", "yes 0.1\n"), comparison="floats", tolerance=1e-6), "yes\n0.1000001\n", "correct"),
        (cases(("", "2000000\n"), comparison="floats", tolerance=1e-6), "2000001", "correct"),
        (cases(("", "0.1\n"), comparison="floats", tolerance=1e-6), "0.10001", "wrong"),
        (cases(("", "0.1\n"), comparison="floats", tolerance=1e-6), "nan", "wrong"),
        (cases(("", "10\n"), comparison="floats", tolerance=1e-6), "1_0", "wrong"),
    ],
)
def test_rules_of_comparison(grader: Grader, tests: dict[str, Any], output: str, verdict: str) -> None:
    assert judge(grader, f"print({output!r}, end='')", tests).verdict == verdict


def test_a_checker_accepts_every_right_answer(grader: Grader) -> None:
    checker = "def check(input, output, expected):\n    a, b = map(int, output.split())\n    return a + b == int(input)"
    tests = cases(("7", "3 4"), ("10", "5 5"), checker=checker)
    assert judge(grader, "print(0, input())", tests).verdict == "correct"
    assert "does not accept '7 7" in judge(grader, "a = input()\nprint(a, a)", tests).detail
    unreadable = judge(grader, "print('seven')", tests)
    assert (unreadable.verdict, "cannot read 'seven" in unreadable.detail) == ("wrong", True)


def test_a_checker_may_return_what_is_true_or_false_by_its_truth(grader: Grader) -> None:
    tests = cases(("", "1"), checker="import re\ndef check(i, o, e): return re.fullmatch('[12]', o.strip())")
    assert [judge(grader, f"print({n})", tests).verdict for n in (1, 2, 3)] == ["correct", "correct", "wrong"]
    for right in ("int(o) % 3", "int(o) % 3 / 2", "True if int(o) < 3 else None", "Decimal(o) % 3"):
        tests = cases(("", "1"), checker=f"from decimal import Decimal\ndef check(i, o, e): return {right}")
        assert [judge(grader, f"print({n})", tests).verdict for n in (1, 3)] == ["correct", "wrong"], right


def test_a_checker_may_return_a_scalar_of_numpys_but_no_array() -> None:
    with Grader(workers=1, packages=["numpy"]) as grader:
        for said, accepted in (("np.bool_(o == e)", "correct"), ("np.isclose(float(o), 1)", "correct"),
                               ("np.float32(o == e)", "correct"), ("np.array([o == e])", "grader_error")):  # fmt: skip
            tests = cases(("", "1\n"), checker=f"import numpy as np\ndef check(i, o, e): return {said}")
            refused = "wrong" if accepted == "correct" else accepted
            assert [judge(grader, f"print({n})", tests).verdict for n in (1, 2)] == [accepted, refused], said


def test_a_checker_that_fails_on_the_expected_output_is_the_graders_error(grader: Grader) -> None:
    for broken in (
        "def check(input, output, expected): return nothing",
        "def check(i, o, e): return o == 'x' or 1 / 0",
        "def check(i, o, e): return 'wrong answer'",
        "def check(i, o, e): return o.isdigit",
        "def check(i, o, e): return (one for one in o)",
        "async def accepts(i, o, e): return False\ncheck = accepts",
        "def check(i, o, e): return float('nan')",
        "def check(i, o, e): return (False, 'wrong')",
        "def check(i, o, e): return [False]",
        "def check(i, o, e): return {'ok': False}",
        "def check(i, o, e): return NotImplemented",
        "class Said: pass\ndef check(i, o, e): return Said()",
    ):
        result = judge(grader, "print(1)", cases(("", "1"), checker=broken))
        assert result.verdict == "grader_error", result
        assert "the checker fails on the expected output" in result.detail
    assert "check returned Said" in result.detail


def test_a_case_has_its_own_limit(grader: Grader) -> None:
    busy = "import time\nend = time.process_time() + 1.2\nwhile time.process_time() < end: pass\nprint(1)"
    tests = cases(("", "1"))
    tests["cases"][0]["time_limit_s"] = 4.0
    assert judge(grader, busy, tests).verdict == "correct"


def test_each_case_has_the_whole_limit_and_nothing_of_the_case_before(grader: Grader) -> None:
    slow = "import time\nn = input()\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\nprint(n)"
    numbers = [(f"{n}\n", f"{n}\n") for n in range(4)]
    assert judge(grader, slow, cases(*numbers)).verdict == "correct"
    counting = "try: runs += 1\nexcept NameError: runs = 1\nprint(runs)"
    assert judge(grader, counting, cases(("", "1"), ("", "1"))).verdict == "correct"
    counting = "import sys\nsys.runs = getattr(sys, 'runs', 0) + 1\nprint(sys.runs)"
    assert judge(grader, counting, cases(("", "1"), ("", "1"))).verdict == "correct"
    # Its text shows no state, which it keeps in a class of the library: the second case is run once more, alone.
    counting = "from collections import deque\nclass A(deque): pass\nb = A.mro()[2].__class__\nprint(1)"
    hidden = "import collections\nc = [collections]\nc[0].runs = getattr(c[0], 'runs', 0) + 1\nprint(c[0].runs)"
    assert judge(grader, counting, cases(("", "1"), ("", "1"))).verdict == "correct"
    assert judge(grader, hidden, cases(("", "1"), ("", "1"), ("", "1"))).verdict == "correct"


FUNCTION = {
    "cases": [{"input": "[1, 2]\n3", "output": "[4, 5]"}, {"input": "[]\n0", "output": "[]"}],
    "function": "shift",
    "star_imports": True,
    "time_limit_s": 1.0,
}


@pytest.mark.parametrize(
    ("program", "verdict", "detail"),
    [
        ("class Solution:\n    def shift(self, a: List[int], k: int): return [x + k for x in a]", "correct", ""),
        ("def shift(a, k): return tuple(x + k for x in a)", "correct", ""),
        ("class Solution:\n    def shift(self, a, k): return a", "wrong", "case 1: [1, 2] instead of [4, 5]"),
        ("class Solution:\n    def move(self, a, k): return a", "wrong", "has no attribute 'shift'"),
        ("class Solution:\n    def shift(self, a, k): raise SystemExit", "wrong", "SystemExit"),
        ("class Solution:\n    def shift(self, a, k):\n        while True: pass", "timeout", "case 1"),
        ("class Solution:\n    def shift(self, a, k): print(a); return [x + k for x in a]", "correct", ""),
        (
            "class A(list):\n    __eq__ = lambda s, o: True\ndef shift(a, k): return A()",
            "wrong",
            "[] instead of [4, 5]",
        ),
    ],
)
def test_functions(grader: Grader, program: str, verdict: str, detail: str) -> None:
    result = judge(grader, program, FUNCTION)
    assert result.verdict == verdict, result
    assert detail in result.detail


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"cases": []}, "at least one case"),
        ({"cases": [{"input": "1"}]}, "case 1: expected input, output"),
        ({"cases": [{"input": 1, "output": "1"}]}, "need to be text"),
        (cases(("", ""), comparison="about"), "comparison is 'about'"),
        (cases(("", ""), comparison="floats"), "tolerance"),
        (cases(("", ""), tolerance=1), "tolerance"),
        (cases(("", ""), checker="x", comparison="exact"), "leave out comparison"),
        (cases(("", ""), function="f", comparison="exact"), "values of a function"),
        (cases(("", ""), time_limit=1), "unknown time_limit"),
        (cases(("", ""), time_limit_s=1e9), "at most a day"),
        ({"cases": [{"input": "", "output": "", "time_limit_s": 1e9}]}, "time_limit_s 0 to 86,400"),
        (cases(("", ""), checker="def check(input"), "the checker is no Python: '(' was never closed"),
        (cases(("", ""), checker="def test(i, o, e): return True"), "the checker defines no check("),
        *(
            (cases(("", ""), memory_mib=size), f"memory_mib is {size}, not a whole number of MiB, 64 to 16,384")
            for size in (63, 16_385, 1024.0, True)
        ),
        (cases(("1", ""), function="f"), "an expected value is not JSON"),
    ],
)
def test_broken_tests_are_the_graders_error(grader: Grader, tests: dict[str, Any], message: str) -> None:
    program = "def f(*a): print(1)" if "function" in tests else "print(1)"
    result = judge(grader, program, tests)
    assert result.verdict == "grader_error"
    assert message in result.detail


def test_cases_behind_a_failed_one_count_where_the_grader_counts_them() -> None:
    tests = cases(*((f"{n}", f"{n}") for n in range(8)))
    program = "n = int(input())\nprint(n if n != 2 else 0)"
    with Grader(1) as one, Grader(1, count_cases=True) as counting:
        assert (judge(one, program, tests).share, judge(counting, program, tests).share) == (2 / 8, 7 / 8)
        assert judge(counting, program, tests).detail == "case 3: '0' instead of '2'"
        endless = "n = int(input())\nprint(n)\nwhile n == 2: pass"
        assert judge(counting, endless, tests).share == 2 / 8


def test_a_long_output_is_compared_and_a_longer_one_is_not_read(grader: Grader) -> None:
    many = "\n".join(map(str, range(300_000)))
    tests = cases(("", many))
    assert judge(grader, "print(*range(300_000))", tests).verdict == "correct"
    assert judge(grader, "print(*range(299_999))", tests).verdict == "wrong"
    padded = "import sys\nsys.stdout.write('1' + ' ' * 2**21)"
    assert judge(grader, padded, cases(("", "1"))).verdict == "correct"  # blanks after what is read say nothing
    assert judge(grader, padded + "\nprint(2)", cases(("", "1 2"))).verdict == "wrong"


def test_a_process_prints_no_more_than_a_caller_can_hold(grader: Grader) -> None:
    """Sixteen megabytes in all, of which a process sends eight at most."""
    long = "x" * 10**6
    tests = cases(*((f"{n}\n", f"{n} {long}\n") for n in range(16)))
    assert judge(grader, "print(input(), 'x' * 10**6)", tests).verdict == "correct"
    with Sandbox(memory_mib=512) as sandbox:
        job = Job(["print(input(), 'x' * 10**6)"], cases=[f"{n}".encode() for n in range(16)])
        assert 1 < len(sandbox.run_cases(job, 5.0, 2**21, enough_s=5.0)) < 10
