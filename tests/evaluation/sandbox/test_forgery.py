"""Programs that end early, print, patch the harness or write a result of their own: none passes."""

import subprocess
import sys

import pytest

from evaluation.sandbox import Sandbox, comparison
from tests.evaluation.sandbox.cases import forged, run


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("import sys\ndef f(): sys.exit(0)", "raised"),
        ("import os\ndef f(): os._exit(0)", "died"),
        ("import os, sys\ndef f(): os.execv(sys.executable, ['python', '-c', ''])", "died"),
        (
            "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\n"
            "def f():\n    while True: pass",
            "died",
        ),
        ("import atexit, os\natexit.register(os._exit, 0)\ndef f(): raise SystemExit(0)", "raised"),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "died"),
        ("import os\ndef f(): os.kill(0, 9)", "died"),
        ("def f(): raise KeyboardInterrupt", "raised"),
        ("class E(Exception):\n    def __str__(self): return 1 / 0\ndef f(): raise E", "raised"),
        ("def f():\n    a = []\n    a.append(a)\n    return a", "raised"),
        ("def f(: pass", "raised"),
    ],
)
def test_an_early_end_is_no_result(unfiltered: Sandbox, source: str, how: str) -> None:
    outcome = run(unfiltered, source)
    assert (outcome.status, outcome.values) == (how, [])


def test_printing_is_no_result(sandbox: Sandbox) -> None:
    outcome = run(
        sandbox, "import sys\nprint('PASS')\nsys.stderr.write('x' * 10**7)\nprint('y' * 10**7)\ndef f(): return 1"
    )
    assert (outcome.status, outcome.values) == ("done", [1])


@pytest.mark.parametrize(
    "patch",
    [
        "import builtins\nbuiltins.compile = builtins.eval = builtins.exec = lambda *a, **k: None",
        "import __main__\n__main__.encode_basestring_ascii = lambda s: '\"done\"'",
        (
            "import sys\nframe = sys._getframe()\nwhile frame := frame.f_back:\n"
            "    frame.f_globals['encode_basestring_ascii'] = lambda s: '\"done\"'"
        ),
        (
            'import os, sys\nfor fd in range(3, 64):\n    try: os.write(fd, b\'["done", "", ["i1"]]\\n\')\n'
            "    except OSError: pass"
        ),
    ],
)
def test_patching_the_harness_makes_no_expected_value(sandbox: Sandbox, patch: str) -> None:
    """What a program can do to its own process never yields what it does not know; here the secret of the parent."""
    outcome = run(sandbox, patch + "\ndef f(): return 2")
    assert outcome.status != "done" or outcome.values in ([None], [2])


HEADERS = [
    *(
        "",
        "[",
        "[" * 5000,
        "{}",
        "1" * 5000,
        '["done", "", 2]\n"i1"\n"i1"',
        '["done", "", 1]',
        '["limit", "", 0]',
        '["done", 1, 0]',
    ),
    *('["done", "", -1]', '["done", "", []]', '["done", "", 1]\n"i\x80"\n', " " * 10**6),
]


MALFORMED = [
    *(
        "1",
        '["c"]',
        '"f0x1p99999"',
        '["d", "i1"]',
        '["S", ["l"]]',
        '["b", "x"]',
        '["b", 1]',
        '{"a": 1}',
        "[" * 5000,
        "1" * 5000,
        "[]",
    ),
    *('""', '["?"]', '["x"]', '["h"]', "\0"),
]


@pytest.mark.parametrize("lines", HEADERS)
def test_a_forged_result_is_at_most_a_failure(sandbox: Sandbox, lines: str) -> None:
    outcome = run(sandbox, forged(ascii(lines)))
    assert outcome.status == "died" or outcome.texts != ['"i1"']
    assert outcome.status != "done" or not comparison.Expected('"s"').equals(outcome.texts[0])


@pytest.mark.parametrize("text", MALFORMED)
def test_a_forged_value_equals_nothing_and_is_shown(sandbox: Sandbox, text: str) -> None:
    outcome = run(sandbox, forged(f'\'["done", "", 1]\\n\' + {text!r}'))
    assert outcome.texts == [text]
    for wanted in ("null", '"i1"', '"s"', '["l"]', '["d"]', '["S", "i1"]', '"f0x1p0"'):
        expected = comparison.Expected(wanted)
        assert [expected.equals(text), expected.is_near(text, 1.0)] == [False] * 2
        assert not comparison.is_root([0.0], text, 1.0)
    assert 0 < len(comparison.short(text)) < 150


ALIKE = "% (k * (2**61 - 1)) for k in range(1, 100_000)) + ']'"
HEAVY = {
    "a set of integers that all hash alike": f"'[\"S\"' + ''.join(', \"i%x\"' {ALIKE}",
    "a dict of such": f"'[\"d\"' + ''.join(', \"i%x\", null' {ALIKE}",
    "a list of such, compared as a set": f"'[\"l\"' + ''.join(', \"i%x\"' {ALIKE}",
    "tuples of such": f"'[\"S\"' + ''.join(', [\"t\", \"i%x\"]' {ALIKE}",
    "millions of empty dicts": "'[\"l\"' + ', [\"d\"]' * 4_000_000 + ']'",
    "millions of lines": "'a\\n' * 20_000_000",
    "a long integer": "'\"i' + 'f' * 30_000_000 + '\"'",
}


@pytest.mark.parametrize("attack", HEAVY)
def test_no_result_takes_the_graders_time_or_memory(attack: str) -> None:
    """What a program writes as its result is as cheap to compare as what it should have written."""
    code = (
        "import re, sys, time\nfrom evaluation.sandbox import Job, Sandbox, comparison\n"
        "with Sandbox(memory_mib=1024) as sandbox:\n"
        "    outcome = sandbox.run(Job([sys.argv[1]], expressions=['f()']), 10.0)\n"
        "texts, spent = outcome.texts, time.process_time()\n"
        'assert len(texts) == 1, outcome\nexpected = comparison.Expected(\'["S", "i1", "i2"]\')\n'
        "assert not expected.equals(texts[0]) and not expected.is_near(texts[0], 1.0)\n"
        "assert not comparison.is_root([0.0], texts[0], 1.0)\ncomparison.short(texts[0])\n"
        # Not ru_maxrss, which begins with what the process that started this one had.
        "peak = int(re.search('VmHWM:\\\\s+(\\\\d+) kB', open('/proc/self/status').read())[1])\n"
        "print(time.process_time() - spent, peak >> 10)"
    )
    source = forged(f'\'["done", "", 1]\\n\' + {HEAVY[attack]}')
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seconds, mib = map(float, done.stdout.split())
    assert seconds < 2.0
    assert mib < 400


def test_a_result_without_end_is_cut(sandbox: Sandbox) -> None:
    source = (
        "import os, sys\nframe = sys._getframe()\nwhile 'channel' not in frame.f_locals: frame = frame.f_back\n"
        "channel, block = frame.f_locals['channel'], b'x' * 65536\n"
        "for _ in range(2000): os.write(channel, block)\ndef f(): return 1"
    )
    outcome = run(sandbox, source, 10.0)
    assert (outcome.status, outcome.detail) == ("died", "too much output")
