"""Programs as models write them, right and wrong, on tasks in the form of LiveCodeBench's files; made for tests.

`build` makes 828 of them: 17 tasks of standard input with 38 programs each, 8 methods with 21, and some that never end.
"""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from evaluation.records import Problem


class Program(NamedTuple):
    """A program on a task. `kind` begins with `right` where it is right, as a shell or an online judge would run it."""

    kind: str
    problem: Problem
    sample: dict[str, Any]
    """The task as LiveCodeBench's grader takes it: inputs, outputs, fn_name."""
    source: str


NUMBERS = "def solve(d):\n    a = list(map(int, d.split()))[1:]\n    "
WORD = "def solve(d):\n    s = d.split()[0]\n    "


def _numbers(rng: random.Random) -> str:
    n = rng.randint(1, 9)
    return f"{n}\n{' '.join(str(rng.randint(-99, 99)) for _ in range(n))}\n"


def _word(rng: random.Random) -> str:
    return "".join(rng.choice("abcxyz") for _ in range(rng.randint(1, 12))) + "\n"


def _pair(least: int, most: int) -> Callable[[random.Random], str]:
    return lambda rng: f"{rng.randint(least, most)} {rng.randint(least, most)}\n"


def _number(least: int, most: int) -> Callable[[random.Random], str]:
    return lambda rng: f"{rng.randint(least, most)}\n"


TASKS: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "sum": (NUMBERS + "return str(sum(a))", _numbers),
    "max": (NUMBERS + "return str(max(a))", _numbers),
    "sort": (NUMBERS + "return ' '.join(map(str, sorted(a)))", _numbers),
    "mean": (NUMBERS + "return str(sum(a) / len(a))", _numbers),
    "lines": (NUMBERS + "return '\\n'.join(map(str, a))", _numbers),
    "pairs": (NUMBERS + "return str(sum(1 for i in range(len(a)) for j in range(i) if a[i] == a[j]))", _numbers),
    "prefix": (
        NUMBERS + "out, s = [], 0\n    for x in a:\n        s += x\n        out.append(s)\n"
        "    return '\\n'.join(map(str, out))",
        _numbers,
    ),
    "best": (
        NUMBERS
        + "best = cur = a[0]\n    for x in a[1:]:\n        cur = max(x, cur + x)\n        best = max(best, cur)\n"
        "    return str(best)",
        _numbers,
    ),
    "rev": (WORD + "return s[::-1]", _word),
    "pal": (
        WORD + "return 'Yes' if s == s[::-1] else 'No'",
        lambda rng: rng.choice(["abba", "abc", "x", "racecar", "ab"]) + "\n",
    ),
    "count": (WORD + "return '\\n'.join(f'{c} {s.count(c)}' for c in sorted(set(s)))", _word),
    "gcd": (
        "def solve(d):\n    a, b = map(int, d.split())\n    while b:\n        a, b = b, a % b\n    return str(a)",
        _pair(1, 9999),
    ),
    "fact": (
        "def solve(d):\n    n = int(d)\n    r = 1\n    for i in range(2, n + 1):\n        r *= i\n    return str(r)",
        _number(0, 60),
    ),
    "fib": (
        "def solve(d):\n    n = int(d)\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
        "    return str(a)",
        _number(0, 90),
    ),
    "prime": (
        "def solve(d):\n    n = int(d)\n"
        "    return 'YES' if n > 1 and all(n % i for i in range(2, int(n**0.5) + 1)) else 'NO'",
        _number(1, 500),
    ),
    "grid": (
        "def solve(d):\n    h, w = map(int, d.split())\n    return '\\n'.join('#' * w for _ in range(h))",
        _pair(1, 5),
    ),
    "dist": ("def solve(d):\n    x, y = map(int, d.split())\n    return str((x * x + y * y) ** 0.5)", _pair(-50, 50)),
}
"""Source of `solve`, from the input to the output, and what makes an input."""
READING = {
    "right": "import sys\n{S}\nprint(solve(sys.stdin.read()))",
    "right, main guard": (
        "import sys\n{S}\ndef main():\n    print(solve(sys.stdin.read()))\nif __name__ == '__main__':\n    main()"
    ),
    "right, input()": (
        "{S}\ndata = []\nwhile True:\n    try:\n        data.append(input())\n    except EOFError:\n"
        "        break\nprint(solve('\\n'.join(data)))"
    ),
    "right, readline": (
        "import sys\n{S}\ninput = sys.stdin.readline\nd = ''\nwhile True:\n    line = input()\n"
        "    if not line: break\n    d += line\nprint(solve(d))"
    ),
    "right, readlines": "import sys\n{S}\nprint(solve('\\n'.join(sys.stdin.readlines())))",
    "right, for line": "import sys\n{S}\nd = ''\nfor line in sys.stdin: d += line\nprint(solve(d))",
    "right, buffer": "import sys\n{S}\nprint(solve(sys.stdin.buffer.read().decode()))",
    "right, stdout.write": "import sys\n{S}\nsys.stdout.write(solve(sys.stdin.read()))",
    "right, no import": "{S}\nprint(solve(stdin.read()))",
    "right, blanks": "import sys\n{S}\nprint('\\n  ' + solve(sys.stdin.read()).replace('\\n', '  \\n  ') + '\\n\\n')",
    "right, exit": "import sys\n{S}\nprint(solve(sys.stdin.read()))\nexit()",
    "right, sys.exit(1)": "import sys\n{S}\nprint(solve(sys.stdin.read()))\nsys.exit(1)",
    "right, class": (
        "import sys\nclass A:\n    def __init__(self, d): self.d = d\n    def go(self):\n"
        "        return solve(self.d)\n{S}\nprint(A(sys.stdin.read()).go())"
    ),
    "right, stderr": "import sys\n{S}\nprint('debug', file=sys.stderr)\nprint(solve(sys.stdin.read()))",
    "right, open(0)": "{S}\nprint(solve(open(0).read()))",
    "right, os.read": "import os, io\n{S}\nprint(solve(io.BytesIO(os.read(0, os.fstat(0).st_size)).read().decode()))",
    "right, os.write": "import os, sys\n{S}\nos.write(1, solve(sys.stdin.read()).encode())",
    "right, global": (
        "import sys\nresult = ''\n{S}\ndef main():\n    global result\n    result += solve(sys.stdin.read())\n"
        "main()\nprint(result)"
    ),
    "right, guard not last": "import sys\n{S}\nif __name__ == '__main__':\n    print(solve(sys.stdin.read()))\npass",
    "right, os._exit(0)": "import os, sys\n{S}\nprint(solve(sys.stdin.read()), flush=True)\nos._exit(0)",
    "right, thread": (
        "import sys, threading\n{S}\ndef main(): print(solve(sys.stdin.read()))\nthreading.Thread(target=main).start()"
    ),
    "right, atexit": "import atexit, sys\n{S}\nr = solve(sys.stdin.read())\natexit.register(lambda: print(r))",
    "wrong, always 0": "print(0)",
    "wrong, nothing": "import sys\nsys.stdin.read()",
    "wrong, one line more": "import sys\n{S}\nprint(solve(sys.stdin.read()))\nprint('done')",
    "wrong, debug first": "import sys\n{S}\nprint('n =', 3)\nprint(solve(sys.stdin.read()))",
    "wrong, a prompt": "import sys\n{S}\nfirst = input('? ')\nprint(solve(first + '\\n' + sys.stdin.read()))",
    "wrong, joined": "import sys\n{S}\nprint(solve(sys.stdin.read()).replace('\\n', '').replace(' ', '') + '!')",
    "wrong, case and an x": "import sys\n{S}\nprint(solve(sys.stdin.read()).swapcase() + 'x')",
    "wrong, some cases": "import sys\n{S}\nr = solve(sys.stdin.read())\nprint(r if len(r) < 2 else r + '0')",
    "crash": "import sys\n{S}\nprint(solve(sys.stdin.read()))\nprint(1 // 0)",
    "crash, name": "print(sovle(input()))",
    "crash, syntax": "print(solve(input())",
    "crash, index": "import sys\na = []\nprint(a[0])",
    "crash, recursion": "def f(n): return f(n + 1)\nprint(f(0))",
    "crash, KeyboardInterrupt": "raise KeyboardInterrupt",
    "crash, os._exit(1)": "import os, sys\n{S}\nprint(solve(sys.stdin.read()), flush=True)\nos._exit(1)",
    "right, caught": (
        "import sys\n{S}\ntry:\n    print(1 // 0)\nexcept Exception:\n    print(solve(sys.stdin.read()))"
    ),
}
"""Programs that read standard input; {S} stands for the source of `solve`."""
READING_WITHOUT_END = {
    "slow, endless": "while True: pass",
    "slow, second case": "import sys\n{S}\nd = sys.stdin.read()\nprint(solve(d))\nwhile len(d) > 6: pass",
    "slow, sleeps": "import time\ntime.sleep(60)",
    "slow, except swallows": (
        "import sys\n{S}\nd = sys.stdin.read()\ntry:\n    while True: pass\nexcept: print(solve(d))"
    ),
    "prints too much": "while True: print('x' * 1000)",
    "memory": "a = []\nwhile True: a.append([0] * 10**6)",
}
"""Such programs that do not come to their end by themselves."""
METHODS: dict[str, tuple[str, list[tuple[list[int], int]]]] = {
    "addAll": (
        "return sum(a) + k",
        [
            ([1, 2], 3),
            ([], 0),
            ([5, 5, 5, 5, 5, 5, 5, 5, 5], -1),
            ([1000000000, 1000000000, 1000000000, 1000000000, 1000000000], 1),
        ],
    ),
    "shift": ("return [x + k for x in a]", [([1, 2], 3), ([], 0), ([5, 5, 5, 5, 5, 5, 5, 5, 5], -1)]),
    "half": ("return [x / 2 for x in a] + [k]", [([1, 2], 3), ([], 0), ([5, 5, 5, 5, 5, 5, 5, 5, 5], -1)]),
    "isIn": ("return k in a", [([1, 2], 3), ([], 0), ([5, 5, 5, 5, 5, 5, 5, 5, 5], 5)]),
    "pairUp": ("return [[x, k] for x in a]", [([1, 2], 3), ([], 0), ([5, 5, 5], 5)]),
    "words": ("return {str(x): k for x in a}", [([1, 2], 3), ([], 0), ([5, 5, 5], 5)]),
    "first": ("return a[0] if a else None", [([1, 2], 3), ([], 0), ([5, 5, 5], 5)]),
    "text": ("return ','.join(map(str, a)) * k", [([1, 2], 3), ([], 0), ([5, 5, 5], 2)]),
}
"""Body of a method of a list and a number, and arguments."""
CALLED = {
    "right": "class Solution:\n    def {N}(self, a: List[int], k: int):\n        {B}",
    "right, imports": (
        "from typing import List\nimport math\nclass Solution:\n    def {N}(self, a: List[int], k: int):\n        {B}"
    ),
    "right, prints": "class Solution:\n    def {N}(self, a, k):\n        print('debug')\n        {B}",
    "right, helper class": (
        "class Solution:\n    def go(self, a, k):\n        {B}\n    def {N}(self, a, k): return self.go(a, k)"
    ),
    "right, cache": (
        "class Solution:\n    @staticmethod\n    def go(a, k):\n        {B}\n    def {N}(self, a, k):\n"
        "        return self.go(list(a), k)"
    ),
    "right, tuple": (
        "class Solution:\n    def go(self, a, k):\n        {B}\n    def {N}(self, a, k):\n"
        "        r = self.go(a, k)\n        return tuple(r) if isinstance(r, list) else r"
    ),
    "right, inner tuples": (
        "class Solution:\n    def go(self, a, k):\n        {B}\n    def {N}(self, a, k):\n"
        "        r = self.go(a, k)\n"
        "        return [tuple(x) if isinstance(x, list) else x for x in r] if isinstance(r, list) else r"
    ),
    "right, bare function": "def {N}(a, k):\n    {B}",
    "right, main after": (
        "class Solution:\n    def {N}(self, a, k):\n        {B}\nif __name__ == '__main__':\n"
        "    print(Solution().{N}([1], 1))"
    ),
    "right, bool for int": (
        "class Solution:\n    def go(self, a, k):\n        {B}\n    def {N}(self, a, k):\n"
        "        r = self.go(a, k)\n        return int(r) if isinstance(r, bool) else r"
    ),
    "state kept": (
        "class Solution:\n    def __init__(self): self.calls = 0\n    def go(self, a, k):\n        {B}\n"
        "    def {N}(self, a, k):\n        self.calls += 1\n"
        "        return self.go(a, k) if self.calls == 1 else 'again'"
    ),
    "wrong, None": "class Solution:\n    def {N}(self, a, k): pass",
    "wrong, input": "class Solution:\n    def {N}(self, a, k): return a",
    "wrong, prints it": (
        "class Solution:\n    def go(self, a, k):\n        {B}\n    def {N}(self, a, k): print(self.go(a, k))"
    ),
    "wrong, str": (
        "class Solution:\n    def go(self, a, k):\n        {B}\n"
        "    def {N}(self, a, k): return repr(self.go(a, k)) + ' '"
    ),
    "crash, name": "class Solution:\n    def other(self, a, k): return a",
    "crash, raises": "class Solution:\n    def {N}(self, a, k): raise ValueError",
    "crash, arguments": "class Solution:\n    def {N}(self, a): return a",
    "crash, exit": "class Solution:\n    def {N}(self, a, k): exit()",
    "crash, syntax": "class Solution:\n    def {N}(self, a, k) return a",
    "equal to all": (
        "class A:\n    def __eq__(s, o): return True\nclass Solution:\n    def {N}(self, a, k): return A()"
    ),
}
"""Programs that are called; {N} is the method's name, {B} its body."""
CALLED_WITHOUT_END = {
    "slow": "class Solution:\n    def {N}(self, a, k):\n        while True: pass",
}
"""Such a program that does not come to its end."""


def build(tasks: int = len(TASKS), methods: int = len(METHODS), *, endless: bool = True) -> list[Program]:
    """The programs on the first so many tasks and methods; those without an end on the first two of each."""
    rng, programs = random.Random(1), list[Program]()
    for place, (name, (source, make)) in enumerate(list(TASKS.items())[:tasks]):
        defined: dict[str, Any] = {}
        exec(source, defined)
        inputs = [make(rng) for _ in range(8)]
        sample: dict[str, Any] = {
            "inputs": inputs,
            "outputs": [defined["solve"](text) + "\n" for text in inputs],
            "fn_name": None,
        }
        kinds = READING | (READING_WITHOUT_END if endless and place < 2 else {})
        programs += [_program(name, kind, sample, text.replace("{S}", source)) for kind, text in kinds.items()]
    for place, (name, (body, arguments)) in enumerate(list(METHODS.items())[:methods]):
        defined = {}
        exec(f"def f(a, k):\n    {body}", defined)
        sample = {
            "inputs": [f"{json.dumps(a)}\n{k}" for a, k in arguments],
            "outputs": [json.dumps(defined["f"](list(a), k)) for a, k in arguments],
            "fn_name": name,
        }
        kinds = CALLED | (CALLED_WITHOUT_END if endless and place < 2 else {})
        programs += [
            _program(name, kind, sample, text.replace("{N}", name).replace("{B}", body)) for kind, text in kinds.items()
        ]
    return programs


def _program(name: str, kind: str, sample: dict[str, Any], source: str) -> Program:
    pairs = zip(sample["inputs"], sample["outputs"], strict=True)
    rules = {"comparison": "lines"} if sample["fn_name"] is None else {"function": sample["fn_name"]}
    tests = {
        "cases": [{"input": one, "output": other} for one, other in pairs],
        "time_limit_s": 6.0,
        "star_imports": True,
        "digits": 50_000,
        **rules,
    }
    return Program(kind, Problem(name, "contest", "code", "?", "", tests), sample, source)
