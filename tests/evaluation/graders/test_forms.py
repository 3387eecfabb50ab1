"""Programs as models write them: what stands around the function neither fails a right one nor saves a wrong one."""

import gc
import sys
import threading
import time

import pytest

from evaluation.graders.reachable import forms, syntax_tree
from evaluation.grading import Grader
from tests.evaluation.graders.cases import DOUBLE, judge

RIGHT = "def f(n):\n    x = n + n\n    return x\n"
DEMOS = [
    "n = input()", "print(f(3))", "assert f(3) == 7", "assert f(10) == 20", "main()", "import sys\nsys.exit(0)",
    "raise SystemExit", "if __name__ == '__main__':\n    f(input())", "for n in range(3):\n    print(n)",
    "def main():\n    return TOTAL", "TOTAL = 1 / 0", "f.__name__", "x = f(3)",
    "try:\n    assert f(3) == 6\nexcept AssertionError: pass", "with open('x') as file: n = file.read()",
    "import numpy_is_not_here as np", "from pandas_is_not_here import *", "import os\nos._exit(0)",
    "while True: pass", "import unittest\nunittest.main()", "import doctest\ndoctest.testmod()", "quit()",
    "import threading\nthreading.Thread(target=f).start()", "class Test(Missing):\n    pass", "del missing",
    "import random\nrandom.seed(1)\nassert f(random.random()) == 1", "raise KeyboardInterrupt", "f()()",
]  # fmt: skip


@pytest.mark.parametrize("demo", DEMOS)
def test_a_demonstration_does_not_end_a_right_program(grader: Grader, demo: str) -> None:
    assert judge(grader, f"{RIGHT}{demo}").verdict == "correct"
    if "f" not in demo:
        assert judge(grader, f"{demo}\n{RIGHT}").verdict == "correct"


@pytest.mark.parametrize("demo", DEMOS)
def test_a_demonstration_does_not_save_a_wrong_program(grader: Grader, demo: str) -> None:
    wrong = RIGHT.replace("n + n", "n + 3")
    assert judge(grader, f"{wrong}{demo}").detail == "test 2 of 2: 13 instead of 20"


TABLE = "t = {}\ndef fill():\n    for n in range(20): t[n] = 2 * n\n"
NEEDED = {
    "a table filled by a call": f"{TABLE}fill()\ndef f(n): return t[n]",
    "a heap": "import heapq\nH = [6, 1]\nheapq.heapify(H)\ndef f(n): return 2 * n if H[0] == 1 else None",
    "a registry": (
        "known = {}\ndef register(g):\n    known[g.__name__] = g\n@register\ndef double(n): return 2 * n\n"
        "def f(n): return known['double'](n)"
    ),
    "singledispatch": (
        "from functools import singledispatch\n@singledispatch\ndef f(n): return None\n@f.register\n"
        "def _(n: int): return 2 * n"
    ),
    "a method of singledispatch": (
        "from functools import singledispatch\n@singledispatch\ndef g(n): return None\n"
        "g.register(int, lambda n: 2 * n)\ndef f(n): return g(n)"
    ),
    "globals()": "globals()['double'] = lambda n: 2 * n\ndef f(n): return double(n)",
    "globals() as the entry": "globals()['f'] = lambda n: 2 * n\nassert f(3) == 7",
    "globals().update": "globals().update(k=2)\ndef f(n): return k * n",
    "setattr on the module": "import sys\nsetattr(sys.modules[__name__], 'k', 2)\ndef f(n): return k * n",
    "exec": "exec('def double(n): return 2 * n')\ndef f(n): return double(n)",
    "an imported entry": "from operator import add\nfrom functools import partial\nf = lambda n: add(n, n)",
    "precision": (
        "from decimal import *\ngetcontext().prec = 60\n"
        "def f(n): return 2 * n if len(str(Decimal(1) / 3)) == 62 else None"
    ),
    "recursion": "import sys\nsys.setrecursionlimit(5000)\ndef f(n, d=2000): return f(n, d - 1) if d else 2 * n",
    "recursion, imported": (
        "from sys import setrecursionlimit as allow\nallow(5000)\ndef f(n, d=2000): return f(n, d - 1) if d else 2 * n"
    ),
    "a patched module": "import math\nmath.double = lambda n: 2 * n\ndef f(n): return math.double(n)",
    "a patched builtin": "import builtins\nbuiltins.double = lambda n: 2 * n\ndef f(n): return double(n)",
    "a class attribute set afterwards": "class A:\n    k = 1\nA.k = 2\ndef f(n): return A.k * n",
    "a method set afterwards": "class A: pass\nsetattr(A, 'm', lambda s, n: 2 * n)\ndef f(n): return A().m(n)",
    "a wrapped function": "from functools import lru_cache\ndef f(n): return 2 * n\nf = lru_cache(None)(f)",
    "a cache warmed by a call": (
        "cache = []\ndef g(n):\n    cache.append(n)\n    return cache\ng(2)\ndef f(n): return cache[0] * n"
    ),
    "a generator advanced": "steps = iter([1, 2])\nnext(steps)\nK = next(steps)\ndef f(n): return K * n",
    "a condition": "k = 1\nif k == 1: k = 2\ndef f(n): return k * n",
    "an else of the main block": "if __name__ == '__main__':\n    pass\nelse:\n    k = 2\ndef f(n): return k * n",
    "a loop of calls": "t = [0] * 20\ndef s(i): t[i] = 2 * i\nfor i in range(20): s(i)\ndef f(n): return t[n]",
    "a comprehension of calls": "t = {}\ndef s(i): t[i] = 2 * i\n[s(i) for i in range(20)]\ndef f(n): return t[n]",
    "a with": "import contextlib\nt = []\nwith contextlib.suppress(Exception): t.append(2)\ndef f(n): return t[0] * n",
    "an assert that fills": "t = []\ndef g():\n    t.append(2)\n    return True\nassert g()\ndef f(n): return t[0] * n",
    "a subclass hook": (
        "known = []\nclass A:\n    def __init_subclass__(c): known.append(c)\nclass B(A):\n    k = 2\n"
        "def f(n): return known[0].k * n"
    ),
    "annotations": "from __future__ import annotations\ndef f(n: Missing) -> Missing: return 2 * n\nprint(f(1))",
    "a table, and a demonstration that fails": f"{TABLE}fill()\ndef f(n): return t[n]\nprint(f(int(input())))",
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_what_no_analysis_sees_is_run(grader: Grader, name: str) -> None:
    result = judge(grader, NEEDED[name])
    assert (result.verdict, result.detail) == ("correct", "")


def test_classes_that_the_tests_use_are_there(grader: Grader) -> None:
    source = "class Pair:\n    def __init__(self, a): self.a = a\ndef f(p): return 2 * p.a\nwhile True: pass\n"
    assert judge(grader, source, DOUBLE | {"asserts": ["assert f(Pair(3)) == 6"]}).verdict == "correct"


@pytest.mark.parametrize("second", [19, 21])
def test_a_program_cannot_answer_twice(grader: Grader, second: int) -> None:
    """The whole came to its end, so that what the function needs alone, which would answer 20, is not asked."""
    source = (
        f"def g(): globals()['answer'] = {second}\ng()\ndef f(n): return 6 if n == 3 else globals().get('answer', 20)\n"
    )
    assert judge(grader, source).detail == f"test 2 of 2: {second} instead of 20"


def test_an_endless_demonstration_costs_one_more_run(grader: Grader) -> None:
    started = time.monotonic()
    assert judge(grader, "def f(n):\n    while True: pass\nwhile True: pass").verdict == "timeout"
    assert time.monotonic() - started < 12


@pytest.mark.parametrize("source", [RIGHT, "def f(n", "x = 1\n" * 2001, f"{RIGHT}if __name__ == '__main__': f(1)\n"])
def test_a_program_that_needs_all_of_itself_is_run_as_it_is(source: str) -> None:
    assert forms(source, {"f"}) == (source,)
    assert len(forms(f"import math\n{RIGHT}", {"f"})) == 1  # nothing but imports that are not needed: no second run
    assert len(forms(f"{RIGHT}print(f(1))\n", {"f"})) == 2


def test_long_chains_of_needs_take_no_time() -> None:
    chain = "".join(f"def f{n}(): return f{n + 1}()\n" for n in range(1999))
    started = time.process_time()
    forms(chain + "print(f0())\n", {"f0"})
    assert time.process_time() - started < 4  # about 1 s on a free core


def test_threads_that_parse_at_once_do_not_count_each_others_depth() -> None:
    numbers = ", ".join(map(str, range(300)))
    source, failed = f"assert f(({numbers},)) == ({numbers},)", []

    def work() -> None:
        for _ in range(50):
            try:
                syntax_tree(source)
            except SystemError as error:
                failed.append(error)

    def give_way(phase: str, info: dict[str, int]) -> None:  # as any callback in Python lets another thread run
        sum(range(300))

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    threads = [threading.Thread(target=work) for _ in range(6)]
    try:
        sys.setswitchinterval(1e-6)
        gc.set_threshold(50, 2, 2)
        gc.callbacks.append(give_way)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(give_way)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert not failed
