"""The sandbox under attack: each property its docstring promises, and the ways round it that are known."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.sandbox import UNSENDABLE, Job, Level, Outcome, Sandbox, SandboxError, comparison, landlock, values

LEAVE_THE_SESSION = "import ctypes, os, time\nif os.getsid(0) != os.getpid():\n    os.setsid()\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"
"""Out of the process group, and no longer killed with the parent."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(memory_mib=512) as shared:
        yield shared


@pytest.fixture
def isolated(sandbox: Sandbox) -> Sandbox:
    if sandbox.level != "namespaces":
        pytest.skip("NOT TESTED: this machine does not let users make namespaces")
    return sandbox


@pytest.fixture(scope="module")
def unfiltered() -> Iterator[Sandbox]:
    """Namespaces alone: what they hold must hold without the filter of system calls and the rules on files."""
    with Sandbox(memory_mib=512, call_filter=False, file_rules=False) as shared:
        if shared.level != "namespaces":
            pytest.skip("NOT TESTED: this machine does not let users make namespaces")
        yield shared


def value_of(sandbox: Sandbox, source: str, expression: str) -> object:
    outcome = sandbox.run(Job([source], expressions=[expression]), 5.0)
    assert outcome.status == "done", outcome
    return outcome.values[0]


def run(sandbox: Sandbox, source: str, limit_s: float = 1.0) -> Outcome:
    return sandbox.run(Job([source], expressions=["f()"]), limit_s)


def sandbox_processes() -> dict[int, int]:
    """Processes of this machine that run the sandbox's program or a fork of it, with their parents; also those of other tests."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"sandbox/child.py" in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def gone(pids: set[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while pids & sandbox_processes().keys():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Spy(threading.Thread):
    """Collects the sandbox's processes that descend from `caller` while it is active; orphans count if they were seen before."""

    def __enter__(self) -> "Spy":
        self.caller, self.seen, self.stop = os.getpid(), set[int](), threading.Event()
        self.start()
        return self

    def run(self) -> None:
        while not self.stop.wait(0.01):
            family = {self.caller} | self.seen
            processes = sandbox_processes()
            while more := {pid for pid, parent in processes.items() if parent in family} - family:
                family |= more
            self.seen |= family & processes.keys()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()


@pytest.mark.parametrize("level", ["namespaces", "rlimits"])
def test_values_come_back_exactly(request: pytest.FixtureRequest, level: Level) -> None:
    if level == "namespaces":
        request.getfixturevalue("isolated")
    sent: list[object] = [
        None,
        True,
        2**5000,
        -1,
        0.1,
        float("inf"),
        1j,
        "é\ud800\n",
        b"\x00",
        [1, (2,)],
        {1, "a"},
        {(1, 2): [3]},
    ]
    sent.append(frozenset({1.5}))
    with Sandbox(level=level) as sandbox:
        assert sandbox.level == level
        outcome = sandbox.run(Job([f"inf = float('inf')\nvalues = {sent!a}"], expressions=["values", "object()"]), 5.0)
    assert outcome.status == "done"
    assert outcome.values[0] == sent
    assert [type(value) for value in outcome.values[0]] == [type(value) for value in sent]
    assert outcome.values[1] is UNSENDABLE


def test_each_call_gets_its_own_arguments(sandbox: Sandbox) -> None:
    job = Job(["def f(x):\n    x.append(1)\n    return x"], entry_point="f", inputs=[[[]], [[5]]])
    assert sandbox.run(job, 5.0).values == [[1], [5, 1]]


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("import sys\ndef f(): sys.exit(0)", "raised"),
        ("import os\ndef f(): os._exit(0)", "died"),
        ("import os, sys\ndef f(): os.execv(sys.executable, ['python', '-c', ''])", "died"),
        (
            "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\ndef f():\n    while True: pass",
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
        'import os, sys\nfor fd in range(3, 64):\n    try: os.write(fd, b\'["done", "", ["i1"]]\\n\')\n    except OSError: pass',
    ],
)
def test_patching_the_harness_makes_no_expected_value(sandbox: Sandbox, patch: str) -> None:
    """What a program can do to its own process never yields what it does not know; here the secret of the parent."""
    outcome = run(sandbox, patch + "\ndef f(): return 2")
    assert outcome.status != "done" or outcome.values in ([None], [2])


def forged(lines: str) -> str:
    """A program that finds the token in the harness's frames and writes the value of an expression as its result."""
    return (
        "import os, sys\ndef f():\n    frame = sys._getframe()\n    while 'token' not in frame.f_locals: frame = frame.f_back\n"
        f"    data = memoryview((frame.f_locals['token'] + ' ' + {lines} + '\\n').encode())\n"
        "    while data: data = data[os.write(frame.f_locals['channel'], data):]\n    os._exit(0)"
    )


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
        assert [expected.equals(text), expected.is_near(text, 1.0), expected.has_same_elements(text)] == [False] * 3
        assert not comparison.is_root([0.0], text, 1.0)
    assert 0 < len(comparison.short(text)) < 150


HEAVY = {
    "a set of integers that all hash alike": "'[\"S\"' + ''.join(', \"i%x\"' % (k * (2**61 - 1)) for k in range(1, 100_000)) + ']'",
    "a dict of such": "'[\"d\"' + ''.join(', \"i%x\", null' % (k * (2**61 - 1)) for k in range(1, 100_000)) + ']'",
    "a list of such, compared as a set": "'[\"l\"' + ''.join(', \"i%x\"' % (k * (2**61 - 1)) for k in range(1, 100_000)) + ']'",
    "tuples of such": "'[\"S\"' + ''.join(', [\"t\", \"i%x\"]' % (k * (2**61 - 1)) for k in range(1, 100_000)) + ']'",
    "millions of empty dicts": "'[\"l\"' + ', [\"d\"]' * 4_000_000 + ']'",
    "millions of lines": "'a\\n' * 20_000_000",
    "a long integer": "'\"i' + 'f' * 30_000_000 + '\"'",
}


@pytest.mark.parametrize("attack", HEAVY)
def test_no_result_takes_the_graders_time_or_memory(attack: str) -> None:
    """What a program writes as its result is as cheap to compare as what it should have written."""
    code = (
        "import re, sys, time\nfrom evaluation.sandbox import Job, Sandbox, comparison\n"
        "with Sandbox(memory_mib=1024) as sandbox:\n    outcome = sandbox.run(Job([sys.argv[1]], expressions=['f()']), 10.0)\n"
        "texts, spent = outcome.texts, time.process_time()\n"
        'assert len(texts) == 1, outcome\nexpected = comparison.Expected(\'["S", "i1", "i2"]\')\n'
        "assert not expected.equals(texts[0]) and not expected.is_near(texts[0], 1.0) and not expected.has_same_elements(texts[0])\n"
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


def test_sets_and_dicts_whose_keys_hash_alike_are_not_built() -> None:
    alike = ", ".join(f'"i{k * (2**61 - 1):x}"' for k in range(1, 20_000))
    for text in (f'["S", {alike}]', f'["F", {alike}]', f'["d", {alike}, {alike}]'):
        with pytest.raises(values.MalformedValue):
            values.unpack(text)
    powers = {2**n for n in range(2000)}  # honest, though many hash alike
    assert values.unpack(values.write(powers)) == powers


EQUAL = [
    *(
        ("1", "1.0"),
        ("True", "1"),
        ("0", "-0.0"),
        ("2**60", "2.0**60"),
        ("10**400", "10**400"),
        ("(1+0j)", "1"),
        ("1.5", "1.5+0j"),
    ),
    *(("float('nan')", "float('nan')"), ("float('inf')", "float('inf')"), ("b'a'", "b'a'"), ("'\\ud800'", "'\\ud800'")),
    *(("{1, 'a'}", "frozenset({'a', 1.0})"), ("{1: 2, 'b': (3,)}", "{'b': (3.0,), True: 2}")),
    ("[float('nan'), {1: float('nan')}]", "[float('nan'), {1: float('nan')}]"),
]
UNEQUAL = [
    *(
        ("1", "'1'"),
        ("[1]", "(1,)"),
        ("2**60 + 1", "2.0**60"),
        ("10**400", "float('inf')"),
        ("None", "False"),
        ("'a'", "b'a'"),
        ("1j", "1"),
    ),
    *(
        ("{1}", "[1]"),
        ("{1: 2}", "{1: 3}"),
        ("[1, 2]", "[1]"),
        ("{1: 2}", "{1, 2}"),
        ("'i1'", "1"),
        ("float('nan')", "None"),
    ),
    *(("object()", "object()"), ("['[\"?\"]']", "[object()]")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "same"), [(*pair, True) for pair in EQUAL] + [(*pair, False) for pair in UNEQUAL]
)
def test_equal_is_what_python_says_and_nan_is_nan(sandbox: Sandbox, one: str, other: str, same: bool) -> None:
    """In both directions; alone, within a container, and as the digest of a long one."""
    for wrap in ("{}", "[0, {}]", "[{}] * 60_000"):
        texts = sandbox.run(Job([""], expressions=[wrap.format(one), wrap.format(other)]), 10.0).texts
        for wanted, text in (texts, texts[::-1]):
            if '["?"]' in wanted:
                with pytest.raises(values.MalformedValue):
                    comparison.Expected(wanted)
            else:
                assert comparison.Expected(wanted).equals(text) is same


def test_a_message_can_always_be_written_to_a_file(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "def f(): raise ValueError('\\ud800')")
    assert outcome.detail.encode("utf-8") == b"ValueError: ?"
    assert run(sandbox, "def f(): raise ValueError('a\\nb\\x1b[2Jc')").detail == "ValueError: a b?[2Jc"


def test_environment_and_arguments_hold_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST", "s3cret")
    assert value_of(sandbox, "import os", "dict(os.environ)") in (
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "0", "LC_CTYPE": "C.UTF-8"},
    )
    assert value_of(sandbox, "import sys", "sys.stdin.read()") == ""


def test_no_files_of_the_machine(isolated: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    listing = "import os\ndef f(): return os.listdir('/')"
    python = Path(os.path.realpath(sys.base_prefix)).parts[1]
    assert set(run(isolated, listing).values[0]) <= {"usr", "lib", "lib64", "etc", "dev", "tmp", python}
    assert set(run(isolated, listing.replace("'/'", "'/usr'")).values[0]) <= {"lib", "lib64", "local", "share"}
    assert set(run(isolated, listing.replace("'/'", "'/usr/local'")).values[0]) <= {"lib"}
    assert run(isolated, listing.replace("'/'", "'/etc'")).values == [["ld.so.cache"]]
    assert run(isolated, f"def f(): return open({str(secret)!r}).read()").detail.startswith("FileNotFoundError")
    for place in ("/usr/x", os.path.realpath(sys.base_prefix) + "/x", "/x", "/dev/x"):
        outcome = run(isolated, f"def f(): open({place!r}, 'w')")
        assert outcome.detail.startswith("OSError: [Errno 30] Read-only file system"), (place, outcome)


def test_its_own_folder_is_small_private_and_removed(isolated: Sandbox) -> None:
    write = (
        "import os\ndef f():\n    before = os.listdir('/tmp')\n    open('/tmp/left', 'w').write('x')\n    return before"
    )
    assert [run(isolated, write).values, run(isolated, write).values] == [[[]], [[]]]
    fill = "def f():\n    for i in range(20):\n        open(f'/tmp/{i}', 'wb').write(bytes(15 * 2**20))"
    assert run(isolated, fill, 5.0).detail.startswith("OSError: [Errno 28] No space left")


def test_a_file_cannot_grow_without_end(sandbox: Sandbox) -> None:
    assert run(sandbox, "def f(): open('big', 'wb').write(bytes(2**25))").detail.startswith(
        "OSError: [Errno 27] File too large"
    )


def test_no_network(unfiltered: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = (
            f"import socket\ndef f():\n    socket.create_connection(('127.0.0.1', {port}), 1)\n    return 'connected'"
        )
        assert run(unfiltered, connect).status == "raised"
        with Sandbox(level="rlimits", call_filter=False, file_rules=False) as open_sandbox:  # the attack itself works
            assert run(open_sandbox, connect).values == ["connected"]
    assert run(unfiltered, "import socket\ndef f(): return [name for _, name in socket.if_nameindex()]").values in (
        [["lo"]],
        [[]],
    )


def test_no_way_back_to_capabilities(unfiltered: Sandbox) -> None:
    attempts = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def f(): return [libc.unshare(0x10000000), libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.setuid(0), libc.chroot(b'/usr')]"
    )
    assert run(unfiltered, attempts).values == [[-1, -1, -1, -1]]


def test_other_processes_cannot_be_seen_traced_or_signalled(unfiltered: Sandbox) -> None:
    """Process 1 is the one that reports how the program ended."""
    attempts = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f():\n    out = [libc.ptrace(16, 1, 0, 0)]\n"
        f"    for pid in (1, {os.getpid()}):\n        try: os.kill(pid, 9)\n        except OSError as e: out.append(type(e).__name__)\n"
        "    return out"
    )
    # The signal to process 1 of the same user is let pass, and has no effect; root's programs have a user of their own.
    assert run(unfiltered, attempts).values in (
        [[-1, "ProcessLookupError"]],
        [[-1, "PermissionError", "ProcessLookupError"]],
    )


def test_an_endless_loop_ends_by_its_cpu_time(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "def f():\n    while True: pass")
    assert (outcome.status, outcome.detail) == ("limit", "CPU time limit of 1 s")
    assert 0.5 <= outcome.cpu_s < 2.0  # the limit counts clock ticks, which a busy machine loses


def test_the_cpu_limit_cannot_be_raised_or_caught(sandbox: Sandbox) -> None:
    source = (
        "import resource, signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "try: resource.setrlimit(resource.RLIMIT_CPU, (900, 900))\nexcept ValueError: pass\ndef f():\n    while True: pass"
    )
    assert run(sandbox, source).status == "limit"


MANY_THREADS = (
    "import _thread\ndef f():\n    _thread.stack_size(32768)\n    lock = _thread.allocate_lock()\n    lock.acquire()\n"
    "    for started in range(2000):\n        try: _thread.start_new_thread(lock.acquire, ())\n        except RuntimeError: break\n"
    "    return started"
)


def test_threads_are_few(isolated: Sandbox) -> None:
    if not isolated.few_threads:
        pytest.skip(
            "NOT TESTED: this kernel counts the processes of all namespaces as one, or root has no user to give"
        )
    assert 100 < run(isolated, MANY_THREADS, 5.0).values[0] < 257


def test_processes_are_few_without_the_filter(unfiltered: Sandbox) -> None:
    if not unfiltered.few_threads:
        pytest.skip(
            "NOT TESTED: this kernel counts the processes of all namespaces as one, or root has no user to give"
        )
    fork = (
        "import os, time\ndef f():\n    for started in range(1000):\n        try:\n            if os.fork() == 0: time.sleep(1000)\n"
        "        except OSError: break\n    return started"
    )
    assert run(unfiltered, fork, 5.0).values[0] < 257


def test_many_programs_have_as_many_threads_each(isolated: Sandbox) -> None:
    """What one has is not what others have used."""
    if not isolated.few_threads:
        pytest.skip(
            "NOT TESTED: this kernel counts the processes of all namespaces as one, or root has no user to give"
        )
    counts: list[object] = []
    source = (
        MANY_THREADS.replace("def f()", "import time\ndef g()")
        + "\ndef f():\n    started = g()\n    time.sleep(0.5)\n    return started"
    )
    runs = [threading.Thread(target=lambda: counts.append(run(isolated, source, 5.0).values[0])) for _ in range(4)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert [100 < count < 257 for count in counts if isinstance(count, int)] == [True] * 4


def test_without_namespaces_threads_are_many_and_that_is_said() -> None:
    with Sandbox(memory_mib=512, level="rlimits") as weak:
        assert run(weak, MANY_THREADS, 5.0).values[0] > 500
        assert "the number of their threads is not limited" in weak.unprotected


def test_memory_is_limited(sandbox: Sandbox) -> None:
    assert run(sandbox, "def f(): return len(bytearray(2**29))").detail.startswith("MemoryError")


def test_a_result_without_end_is_cut(sandbox: Sandbox) -> None:
    source = (
        "import os, sys\nframe = sys._getframe()\nwhile 'channel' not in frame.f_locals: frame = frame.f_back\n"
        "channel, block = frame.f_locals['channel'], b'x' * 65536\nfor _ in range(2000): os.write(channel, block)\ndef f(): return 1"
    )
    outcome = run(sandbox, source, 10.0)
    assert (outcome.status, outcome.detail) == ("died", "too much output")


def test_long_results_are_compared_by_digest(sandbox: Sandbox) -> None:
    one, same, other = (
        value_of(sandbox, "", text)
        for text in ("list(range(10**5))", "[float(i) for i in range(10**5)]", "[0] * 10**5")
    )
    assert one == same
    assert one != other


@pytest.mark.slow
def test_a_sleeper_that_leaves_its_session_ends_with_the_run(unfiltered: Sandbox) -> None:
    with Spy() as spy:
        assert run(unfiltered, LEAVE_THE_SESSION + "def f(): time.sleep(1000)", 0.1).status == "limit"
    assert len(spy.seen) >= 3
    assert gone(spy.seen)


@pytest.mark.parametrize("end", ["return 7", "os._exit(3)", "while True: pass"])
def test_children_left_behind_end_with_the_run(unfiltered: Sandbox, end: str) -> None:
    source = (
        LEAVE_THE_SESSION
        + f"def f():\n    for _ in range(5):\n        if os.fork() == 0:\n            time.sleep(1000)\n    {end}"
    )
    with Spy() as spy:
        run(unfiltered, source)
    assert gone(spy.seen)


def test_children_in_the_same_session_end_with_the_run_also_without_namespaces() -> None:
    with Sandbox(level="rlimits", call_filter=False, file_rules=False) as sandbox, Spy() as spy:
        assert run(
            sandbox, "import os, time\ndef f():\n    if os.fork() == 0: time.sleep(1000)\n    return 7"
        ).values == [7]
    assert gone(spy.seen)


@pytest.mark.parametrize("call_filter", [True, False])
def test_without_namespaces_nothing_outlives_its_verdict(call_filter: bool) -> None:
    """The program says itself that it has ended, out of its session and no longer killed with its parent, and sleeps on."""
    leave = (
        "import ctypes, os, sys, time\ndef f():\n    for act in (lambda: ctypes.CDLL(None).prctl(1, 0, 0, 0, 0), os.setsid, os.fork):\n"
        "        try: act()\n        except OSError: pass\n"
        "    frame = sys._getframe()\n    while 'channel' not in frame.f_locals: frame = frame.f_back\n"
        "    time.sleep(0.5)\n    os.write(frame.f_locals['channel'], b'\\nend 0 0 0.000\\n')\n    time.sleep(1000)"
    )
    with Sandbox(level="rlimits", call_filter=call_filter, file_rules=False) as sandbox:
        if call_filter and not sandbox.filtered:
            pytest.skip("NOT TESTED: no filter of system calls on this machine")
        with Spy() as spy:
            assert run(sandbox, leave, 5.0).status == "died"
        assert len(spy.seen) >= 3
        assert gone(spy.seen)


STRANGER = """
import ctypes, os, sys
from evaluation.sandbox import Job, Sandbox
verdict, program = bytearray(b"VERDICT=" + b"wrong__"), sys.stdin.read()
with Sandbox(level="rlimits", file_rules=sys.argv[1] == "rules") as sandbox:
    outcome = sandbox.run(Job([program], expressions=["f()"]), 10.0)
print(sandbox.ruled, verdict.decode(), outcome.texts)
"""
REACH = """
import os, re
def parent(pid): return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
def write(pid):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in open(f"/proc/{pid}/maps"):
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if " rw" not in line or high - low > 2**26: continue
            try: found = re.search(b"VERD" + b"ICT=wrong__", (memory.seek(low), memory.read(high - low))[1])
            except (OSError, ValueError, OverflowError): continue
            if found: memory.write((memory.seek(low + found.start()), b"VERDICT=correct")[1])
    return True
def attempt(pid):
    try: return write(pid)
    except PermissionError: return False
def f():
    watcher = os.getppid()
    try: pids = [watcher, parent(watcher), parent(parent(watcher))]
    except PermissionError: return None
    return [attempt(pid) for pid in pids]
"""


def stranger(rules: str) -> str:
    """What a sandbox without namespaces says when an ordinary user grades a program that writes to the memory of all before it."""
    python = sys.executable
    if os.getuid() == 0:  # whose memory is safe anyway: the program has none of its capabilities
        python = shutil.which("python3", path="/usr/bin") or ""
        if (
            not python
            or subprocess.run(
                [python, "-c", "import sys; assert sys.version_info >= (3, 11)"], stderr=subprocess.DEVNULL
            ).returncode
        ):
            pytest.skip("NOT TESTED: no Python that another user can run")
    as_other = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [python, "-B", "-c", STRANGER, rules],
        input=REACH,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        **as_other,
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


def test_the_graders_memory_is_out_of_reach_without_namespaces(sandbox: Sandbox) -> None:
    if not sandbox.ruled:
        pytest.skip("NOT TESTED: this kernel has no Landlock")
    assert stranger("rules") == "True VERDICT=wrong__ ['null']"


def test_where_landlock_is_missing_the_sandboxs_own_processes_are_out_of_reach(sandbox: Sandbox) -> None:
    """And the grader is not, which `unprotected` says."""
    assert stranger("none") == """False VERDICT=correct ['["l", false, false, true]']"""
    with Sandbox(level="rlimits", file_rules=False) as weak:
        assert any("memory" in text for text in weak.unprotected)


@pytest.fixture(scope="module", params=["namespaces", "rlimits"])
def ruled(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The rules on files, which must hold without the filter of system calls."""
    with Sandbox(
        memory_mib=512, level=None if request.param == "namespaces" else "rlimits", call_filter=False
    ) as shared:
        if not shared.ruled or shared.level != request.param:
            pytest.skip("NOT TESTED: no Landlock, or no namespaces, on this machine")
        yield shared


def test_rules_on_files_leave_python_and_a_folder_of_its_own(ruled: Sandbox) -> None:
    use = (
        "import json, tempfile, decimal, os, shutil\ndef f():\n    os.mkdir('a')\n    open('a/b', 'w').write('x')\n"
        "    os.rename('a/b', 'c')\n    shutil.rmtree('a')\n    open('/dev/null', 'w').write('x')\n"
        "    return [open('c').read(), tempfile.TemporaryFile().write(b'abc')]"
    )
    assert run(ruled, use, 5.0).values == [["x", 3]]


REACHES = [
    *(
        "open(SECRET)",
        "os.listdir(os.path.dirname(SECRET))",
        "open('/etc/passwd')",
        "os.listdir('/proc')",
        "open('/proc/1/environ')",
    ),
    *(
        "open(SECRET, 'w')",
        "os.unlink(SECRET)",
        "os.rename(SECRET, 'x')",
        "os.link(SECRET, 'x')",
        "os.truncate(SECRET, 0)",
    ),
    *(
        "os.mkdir(SECRET + '1')",
        "os.symlink('/', SECRET + '2')",
        "os.mkfifo(SECRET + '3')",
        "open('/usr/x', 'w')",
        "open('/dev/shm/x', 'w')",
    ),
    *(
        "open('/proc/self/mem', 'r+b')",
        "open(f'/proc/{os.getppid()}/mem', 'r+b')",
        "os.kill(GRADER, 0)",
        "os.execv(sys.executable, ['x'])",
    ),
]


@pytest.mark.parametrize("reach", REACHES)
def test_rules_on_files_refuse_the_rest(ruled: Sandbox, tmp_path: Path, reach: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    source = f"import os, sys\nSECRET, GRADER = {str(secret)!r}, {os.getpid()}\ndef f():\n    {reach}"
    outcome = run(ruled, source)
    assert outcome.status == "raised"
    assert outcome.detail.startswith(
        ("PermissionError", "FileNotFoundError", "OSError: [Errno 30]", "OSError: [Errno 18]", "ProcessLookupError")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert secret.read_text() == "s3cret"


def test_tcp_is_refused_by_rules_alone(ruled: Sandbox) -> None:
    if landlock.version() < landlock.TCP_SINCE:
        pytest.skip("NOT TESTED: this kernel's Landlock does not know TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket\ndef f(): socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert run(ruled, connect).detail.startswith(("PermissionError", "OSError: [Errno 101]", "ConnectionRefused"))


def test_the_folder_of_its_own_has_room_for_few_files(isolated: Sandbox) -> None:
    fill = "import os\ndef f():\n    for n in range(100_000): os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))"
    assert run(isolated, fill, 5.0).detail.startswith("OSError: [Errno 28] No space left")


@pytest.mark.slow
def test_a_run_leaves_no_process_nor_folder_nor_descriptor(sandbox: Sandbox) -> None:
    folder = sandbox._folder
    descriptors, files = len(os.listdir("/proc/self/fd")), set(folder.iterdir())
    for source in ("def f(): return 1", "import time\ndef f(): time.sleep(1000)"):
        run(sandbox, source, 0.1)
    assert set(folder.iterdir()) == files
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(ChildProcessError):  # nothing waits to be reaped
        os.waitpid(-1, os.WNOHANG)


def test_programs_end_when_their_caller_is_killed(isolated: Sandbox, tmp_path: Path) -> None:
    caller = (
        "from evaluation.sandbox import Job, Sandbox\n"
        f"Sandbox().run(Job([{LEAVE_THE_SESSION!r} + 'def f(): time.sleep(1000)'], expressions=['f()']), 300)"
    )
    with Spy() as spy:
        process = subprocess.Popen([sys.executable, "-c", caller], env=os.environ | {"TMPDIR": str(tmp_path)})
        spy.caller = process.pid
        deadline = time.monotonic() + 30
        while len(spy.seen & sandbox_processes().keys()) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # until the program itself runs
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(spy.seen) >= 3
    assert gone(spy.seen)


def test_closing_ends_what_runs_in_other_threads() -> None:
    sandbox = Sandbox()
    outcomes: list[Outcome | SandboxError] = []

    def work() -> None:
        try:
            outcomes.append(run(sandbox, "import time\ndef f(): time.sleep(1000)", 100.0))
        except SandboxError as error:
            outcomes.append(error)

    with Spy() as spy:
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.5)
        sandbox.close()
        thread.join(5.0)
        assert not thread.is_alive()
    assert len(outcomes) == 1
    assert gone(spy.seen)
    with pytest.raises((SandboxError, FileNotFoundError)):
        run(sandbox, "def f(): return 1")


def test_many_threads(sandbox: Sandbox) -> None:
    results: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: value_of(sandbox, f"def f(): return {n}", "f()")}))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: n for n in range(16)}


def test_one_program_costs_little(sandbox: Sandbox) -> None:
    times = []
    for _ in range(10):
        start = time.perf_counter()
        run(sandbox, "def f(): return 1")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.15  # about 0.02 s on a free core


REFUSED = {
    "fork": "os.fork()",
    "another program": "os.execv('/bin/true', ['true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "__import__('subprocess').run(['true'])",
    "socket": "__import__('socket').socket()",
    "local socket pair": "__import__('socket').socketpair()",
    "kill": "os.kill(os.getppid(), 9)",
    "kill by pidfd": "os.pidfd_open(os.getppid())",
    "memory file": "os.memfd_create('x')",
    "unshare": "call(272, 0x10000000)",
    "ptrace": "call(101, 16, os.getppid(), 0, 0)",
    "keyctl": "call(250, 0, -3, 0)",
    "bpf": "call(321, 0, 0, 0)",
    "io_uring": "call(425, 1, 0)",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "signal to a thread of another": "call(234, os.getppid(), os.getppid(), 9)",
    "clone without its thread flag": "call(56, 17, 0, 0, 0, 0)",
    "vfork": "call(58)",
    "a session of its own": "os.setsid()",
    "a process group of its own": "os.setpgid(0, 0)",
    "outlive its parent": "call(157, 1, 0, 0, 0, 0)",
    "limits of another": "__import__('resource').prlimit(os.getppid(), 0)",
    "cores of another": "os.sched_setaffinity(os.getppid(), [0])",
    "priority of another": "os.setpriority(0, os.getppid(), 5)",
    "signals by way of a descriptor": "__import__('fcntl').fcntl(0, 8, os.getppid())",
    "System V memory": "call(29, 0, 4096, 0o1666)",
    "dumps of its memory": "call(157, 4, 1, 0, 0, 0)",
    "message queue": "call(240, b'/x', 0o102, 0o600, 0)",
    "writing all caches out": "call(162)",
    "a number of the other ABI": "call(0x40000000 + 57)",
}


@pytest.fixture(scope="module", params=["namespaces", "rlimits"])
def filtered(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(memory_mib=512, level=None if request.param == "namespaces" else "rlimits") as shared:
        if not shared.filtered or shared.level != request.param:
            pytest.skip("NOT TESTED: no filter of system calls, or no namespaces, on this machine")
        yield shared


@pytest.mark.parametrize("attack", REFUSED)
def test_the_filter_refuses(filtered: Sandbox, attack: str) -> None:
    source = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*arguments):\n"
        "    result = libc.syscall(*arguments)\n    number = ctypes.get_errno()\n"
        "    if result < 0: raise OSError(number, os.strerror(number))\n"
        "    return result\n"
        f"def f():\n    try: return {REFUSED[attack]}\n    except OSError as error: return type(error).__name__"
    )
    assert value_of(filtered, source, "f()") == "PermissionError"


@pytest.mark.parametrize(
    "attack",
    ["os.chmod(SECRET, 0)", "os.utime(SECRET, (1, 1))", "os.chown(SECRET, 1, 1)", "os.setxattr(SECRET, 'user.x', b'')"],
)
def test_what_rules_on_files_do_not_reach_is_refused_where_files_can_be_named(tmp_path: Path, attack: str) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    before = secret.stat()
    with Sandbox(level="rlimits") as sandbox:
        if not sandbox.filtered:
            pytest.skip("NOT TESTED: no filter of system calls on this machine")
        assert run(sandbox, f"import os\nSECRET = {str(secret)!r}\ndef f(): {attack}").detail.startswith(
            "PermissionError"
        )
    assert secret.stat() == before


CHANNEL = "import os, sys\nframe = sys._getframe()\nwhile 'channel' not in frame.f_locals: frame = frame.f_back\n"
END = "os.write(frame.f_locals['channel'], b'\\nend 0 0 0.000\\n')"
STUBBORN = {
    "stops itself": "import signal\ndef f(): signal.raise_signal(signal.SIGSTOP)",
    "sleeps when it is told to end": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ndef f(): time.sleep(1000)",
    "closes every descriptor": "import os\ndef f(): os.closerange(0, 64)",
    "makes its channel not block and fills it": (
        CHANNEL + "os.set_blocking(frame.f_locals['channel'], False)\ndef f():\n    while True:\n"
        "        try: os.write(frame.f_locals['channel'], b'x' * 65536)\n        except BlockingIOError: pass"
    ),
    "says again and again that it has ended": f"{CHANNEL}def f():\n    while True: {END}",
    "says that it took no time": CHANNEL + "def f():\n    " + END.replace("0.000", "-1e999") + "\n    os._exit(0)",
    "recurses without end": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()",
    "overflows the stack": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    a = []\n    for _ in range(10**6): a = [a]\n    return repr(a)"
    ),
    "objects that make objects when they end": (
        "class A:\n    def __del__(s): s.x = [A() for _ in range(2)]\ndef f():\n    while True: A()"
    ),
    "digits of a long integer": "import sys\nsys.set_int_max_str_digits(0)\ndef f(): raise ValueError(10 ** 10**8)",
    "a list of itself": "def f():\n    a = []\n    a.append(a)\n    return a",
    "threads that spin": (
        "import _thread\ndef f():\n    while True: pass\n_thread.stack_size(65536)\nfor _ in range(5): _thread.start_new_thread(f, ())"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", STUBBORN)
def test_whatever_a_program_does_it_ends_and_is_not_done(filtered: Sandbox, attack: str) -> None:
    started = time.monotonic()
    with Spy() as spy:
        outcome = run(filtered, STUBBORN[attack])
    assert time.monotonic() - started < 15
    assert outcome.status in ("raised", "died", "limit")
    assert outcome.texts == []
    assert 0 <= outcome.cpu_s < 10
    assert gone(spy.seen)


@pytest.mark.parametrize(
    "leftover",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
        "import atexit, time\natexit.register(time.sleep, 1000)",
        "class A:\n    def __del__(s):\n        while True: pass\na = A()",
        "import sys\nsys.modules.clear()",
        "import builtins\nfor name in list(vars(builtins)): delattr(builtins, name)",
        "import gc\nfor it in gc.get_objects():\n    if isinstance(it, list) and it and isinstance(it[0], list): it.clear()",
    ],
)
def test_what_a_program_leaves_for_its_end_is_not_waited_for(filtered: Sandbox, leftover: str) -> None:
    """Nor does it change what is asked next: at most that fails."""
    started = time.monotonic()
    outcome = filtered.run(Job([f"def f(x): return x\n{leftover}"], entry_point="f", inputs=[[1], [2]]), 2.0)
    assert time.monotonic() - started < 5
    assert outcome.values in ([1, 2], [])


def test_the_filter_hides_the_call_whose_flags_it_cannot_see(filtered: Sandbox) -> None:
    clone3 = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f(): return [libc.syscall(435, None, 0), ctypes.get_errno()]"
    assert run(filtered, clone3).values == [[-1, 38]]


def test_the_filter_leaves_threads_files_and_abort(filtered: Sandbox) -> None:
    source = "import threading, tempfile, os\nfrom concurrent.futures import ThreadPoolExecutor\n"
    assert value_of(filtered, source, "list(ThreadPoolExecutor(4).map(abs, [-1, -2]))") == [1, 2]
    assert value_of(filtered, source, "tempfile.TemporaryFile().write(b'abc')") == 3
    assert "signal 6" in run(filtered, "import os\ndef f(): os.abort()").detail


def test_what_is_missing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox(level="rlimits", call_filter=False, file_rules=False) as weak:
        assert any("reach the network" in text for text in weak.unprotected)
        assert any("number of processes" in text for text in weak.unprotected)
    assert "they can read the files" in caplog.text
