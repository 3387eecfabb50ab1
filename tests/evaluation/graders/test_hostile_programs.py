"""Hostile programs get no better verdict than they earn, and cost no time."""

import time
from pathlib import Path

import pytest

from evaluation.graders.code import CodeGrader
from evaluation.grading import Grader
from evaluation.sandbox import Sandbox
from tests.evaluation.graders.cases import DOUBLE, judge, problem

HOSTILE = {
    "exit": "import sys\ndef f(x): sys.exit(0)",
    "exit at once": "def f(x): return 1\nraise SystemExit",
    "_exit": "import os\ndef f(x): os._exit(0)",
    "_exit in a thread": (
        "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\ndef f(x):\n    while True: pass"
    ),
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): exit()",
    "exec another program": "import os\ndef f(x): os.execv('/bin/true', ['true'])",
    "print PASS": "print('PASS\\nOK\\n1 passed')\ndef f(x): return 0",
    "equal to everything": (
        "class A:\n    def __eq__(s, o): return True\n    def __hash__(s): return 0\ndef f(x): return A()"
    ),
    "int equal to everything": (
        "class A(int):\n    def __eq__(s, o): return True\n    def __index__(s): return 6\ndef f(x): return A(0)"
    ),
    "reflected equality": "class A(float):\n    __eq__ = __ne__ = __lt__ = lambda s, o: True\ndef f(x): return A(0)",
    "patched builtins": (
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.all = lambda *a: True\ndef f(x): return 0"
    ),
    "assert off": "import sys\nsys.flags = None\n__debug__x = 0\ndef f(x): return 0",
    "write to every descriptor": (
        'import os\ntext = b\'ready\\n["done", "", ["i6", "i14"]]\\nend 0 0 0.1\\n\'\ndef f(x):\n'
        "    for fd in range(3, 64):\n"
        "        try: os.write(fd, text)\n        except OSError: pass\n    os._exit(0)"
    ),
    "the caller's frame": (
        "import sys\ndef f(x):\n    frame = sys._getframe(1)\n    while frame:\n"
        "        for value in frame.f_locals.values():\n"
        "            if isinstance(value, int): return value\n        frame = frame.f_back\n    return 0"
    ),
    "kill everything": "import os\ndef f(x):\n    os.kill(-1, 9)\n    os.kill(os.getppid(), 9)\n    return 0",
    "memory": "def f(x): return bytearray(10**12)",
    "many small objects": "def f(x):\n    a = []\n    while True: a.append([0] * 10**6)",
    "huge output": "def f(x): return ['x' * 1000 * i for i in range(10**5)]",
    "endless iterator": "class A(list):\n    def __iter__(s):\n        while True: yield 6\ndef f(x): return A()",
    "deep value": "def f(x):\n    a = []\n    for i in range(10**5): a = [a]\n    return a",
    "deep source": "def f(x): return " + "(" * 5000 + ")" * 5000,
    "sleep": "import time\ndef f(x): time.sleep(1000)",
    "ignores signals": (
        "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except OSError: pass\nwhile True: pass\ndef f(x): 0"
    ),
    "catches everything": (
        "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    ),
    "surrogates": "def f(x): return '\\ud800'",
    "patched hashes": (
        "import hashlib, marshal\nmarshal.dumps = lambda *a: b''\nhashlib.blake2b = None\ndef f(x): return [0] * 10**5"
    ),
    "its module replaced": (
        "import sys, types\nsys.modules['program'] = types.SimpleNamespace(f=lambda x: 2 * x)\ndef f(x): return 0"
    ),
    "the result's pipe by its name": (
        "import os\nfor name in os.listdir('.') + ['result', '/tmp/result']:\n"
        "    try: print(os.read(os.open(name, os.O_RDONLY | os.O_NONBLOCK), 99))\n    except OSError: pass\n"
        "def f(x): return 0"
    ),
    "sockets over every descriptor": (
        "import os, socket\na, b = socket.socketpair()\nfor fd in range(3, 64):\n"
        "    if fd not in (a.fileno(), b.fileno()): os.dup2(a.fileno(), fd)\ndef f(x): return 0"
    ),
    "an answer for each of two runs": (
        "runs = []\ndef g(): runs.append(1)\ng()\ndef f(x):\n"
        "    if runs and x == 10: raise SystemExit\n    return 6 if runs else 20"
    ),
    "a thread that goes on": (
        "import threading, os, time\ndef g():\n    while True:\n        for fd in range(3, 20):\n"
        '            try: os.write(fd, b\'["done", "", 2]\\n"i6"\\n"i14"\\n\')\n            except OSError: pass\n'
        "threading.Thread(target=g, daemon=True).start()\ndef f(x): return 0"
    ),
    "raises a class of its own": "class E(BaseException):\n    def __str__(s): raise s\ndef f(x): raise E",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_neither_pass_nor_hang(grader: Grader, name: str) -> None:
    """As they are extracted, and as they are written: of the latter every statement is run."""
    started = time.monotonic()
    result = judge(grader, HOSTILE[name])
    assert result.verdict in ("wrong", "timeout"), result
    with Sandbox() as sandbox:
        verdict, detail = CodeGrader(sandbox, 1.0).grade(problem(DOUBLE), HOSTILE[name])
    assert verdict in ("wrong", "timeout"), detail
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_nor_with_packages() -> None:
    """Each begins by importing numpy, of which every process has a copy."""
    right = "import numpy as np\ndef f(x): return np.int64(2 * x)"
    sources = {name: f"import numpy as np\n{source}" for name, source in HOSTILE.items()} | {"right": right}
    with Grader(workers=2, code_timeout_s=1.0, packages=["numpy"]) as grader:
        items = [(problem(DOUBLE), f"```python\n{source}\n```", "stop") for source in sources.values()]
        verdicts = dict(zip(sources, (graded.verdict for graded in grader.grade(items)), strict=True))
    assert verdicts.pop("right") == "correct"
    assert set(verdicts.values()) <= {"wrong", "timeout"}, verdicts


def test_sleeping_children_are_gone_afterwards(grader: Grader, tmp_path: Path) -> None:
    mark = f"sleeper-{time.time_ns()}"
    program = (
        "import os, sys\ndef start():\n    for i in range(5):\n        if os.fork() == 0:\n"
        f"            os.execv(sys.executable, ['{mark}', '-S', '-c', 'import time; time.sleep(300)'])\n"
        f"def f(x, _=start()): return 2 * x"
    )
    started = time.monotonic()
    judge(grader, program)
    assert time.monotonic() - started < 20
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _exists(path)]
    assert not [line for line in running if mark.encode() in line]


def _exists(path: Path) -> bool:
    try:
        path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


@pytest.mark.parametrize(
    "program",
    [
        "class A:\n    __sub__ = __abs__ = lambda s, *o: s\n    __lt__ = lambda s, o: True\ndef f(x): return A()",
        (
            "class A(float):\n    __sub__ = __abs__ = lambda s, *o: s\n    __lt__ = lambda s, o: True\n"
            "def f(x): return A(0)"
        ),
        "import builtins\nbuiltins.abs = lambda v: 0\ndef f(x): return 0",
        "abs = lambda v: 0\ndef f(x): return 0",
        (
            "import sys\ndef f(x):\n"
            "    return max([c for c in sys._getframe(1).f_code.co_consts if isinstance(c, float)] or [0])"
        ),
    ],
)
def test_an_assert_that_is_no_equation_cannot_be_forged(grader: Grader, program: str) -> None:
    """Only the value of f(3) comes out of the program's sandbox; what is asked of it is evaluated elsewhere."""
    tests = {"entry_point": "f", "setup": "", "asserts": ["assert abs(f(3) - 5.9) < 0.2"]}
    assert judge(grader, program, tests).verdict == "wrong"
    assert judge(grader, "def f(x): return 2 * x", tests).verdict == "correct"


def test_values_that_hash_alike_cost_no_time(grader: Grader) -> None:
    """Whether they are compared, in any way, or handed on to an assert."""
    source = "def f(x): return [k * (2**61 - 1) for k in range(1, 10_000)]"
    hostile = (
        "import os, sys\ndef f(x):\n    frame = sys._getframe()\n"
        "    while 'token' not in frame.f_locals: frame = frame.f_back\n"
        "    text = '[\"S\"' + ''.join(', \"i%x\"' % (k * (2**61 - 1)) for k in range(1, 100_000)) + ']\\n'\n"
        "    data = memoryview((frame.f_locals['token'] + ' [\"done\", \"\", 1]\\n' + text).encode())\n"
        "    while data: data = data[os.write(frame.f_locals['channel'], data):]\n    os._exit(0)"
    )
    base = {"entry_point": "f", "preamble": "", "inputs": [[1]], "atol": 0.1}
    for tests in (
        base,
        base | {"check": "same_set"},
        base | {"check": "polynomial_root"},
        DOUBLE,
        DOUBLE | {"asserts": ["assert len(f(3)) > 2"]},
    ):
        for program in (source, hostile):
            before = time.process_time()
            assert judge(grader, program, tests, gold="def f(x): return [1, 2, 3]").verdict in ("wrong", "correct")
            assert time.process_time() - before < 2.0
