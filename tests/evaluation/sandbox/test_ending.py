"""Whatever a program does, it ends, and nothing of it is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluation.sandbox import Job, ProgramResult, Sandbox, SandboxError, children
from tests.evaluation.sandbox.cases import LEAVE_THE_SESSION, Spy, gone, run, sandbox_processes, servers, value_of


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
    """The program leaves its session, is no longer killed with its parent, says that it has ended, and sleeps on."""
    leave = (
        "import ctypes, os, sys, time\ndef f():\n"
        "    for act in (lambda: ctypes.CDLL(None).prctl(1, 0, 0, 0, 0), os.setsid, os.fork):\n"
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


@pytest.mark.slow
def test_a_run_leaves_no_process_nor_folder_nor_descriptor(sandbox: Sandbox) -> None:
    folder = sandbox._folder
    descriptors, files = len(os.listdir("/proc/self/fd")), set(folder.iterdir())
    for source in ("def f(): return 1", "import time\ndef f(): time.sleep(1000)"):
        run(sandbox, source, 0.1)
    assert set(folder.iterdir()) == files
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.waitpid(-1, os.WNOHANG) == (0, 0)  # nothing waits to be reaped
    assert not [pid for server in servers(os.getpid()) for pid in servers(server)]


def test_servers_are_as_many_as_threads_and_end_with_the_sandbox() -> None:
    before = servers(os.getpid())
    with Sandbox() as sandbox:
        for _ in range(3):
            run(sandbox, "def f(): return 1")
        [server] = servers(os.getpid()) - before
    assert gone({server})


def test_no_process_of_a_run_ends_by_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that stays outside is told to end at the moment at which the one that it waits for ends by itself."""
    with (tmp_path / "errors").open("wb") as errors:
        real = children._Server
        monkeypatch.setattr(children, "_Server", lambda *args, **options: real(*args, **{**options, "stderr": errors}))
        with Sandbox() as sandbox:
            assert all(run(sandbox, "def f(): return 1").values == [1] for _ in range(30))
    assert (tmp_path / "errors").read_text(encoding="utf-8") == ""


def test_a_server_that_is_killed_is_replaced() -> None:
    before = servers(os.getpid())
    with Sandbox() as sandbox:
        [server] = servers(os.getpid()) - before
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
        assert run(sandbox, "def f(): return 1").values == [1]


def test_nothing_passes_from_one_program_to_the_next(sandbox: Sandbox) -> None:
    """Each is forked from a server that has run no program."""
    spoil = (
        "import builtins, math, os, random, re, signal, sys, typing\nbuiltins.left = math.left = re.left = 1\n"
        "sys.modules['typing'] = sys.modules['left'] = math\nsys.path.append('/left')\nos.environ['left'] = '1'\n"
        "random.seed(1)\nsys.setrecursionlimit(333)\nsignal.signal(2, signal.SIG_IGN)\nopen('left', 'w').close()\n"
        "def f(): return 1"
    )
    look = (
        "import builtins, math, os, random, re, signal, sys, typing\ndef f(): return [hasattr(builtins, 'left'), "
        "hasattr(math, 'left'), hasattr(re, 'left'), typing.__name__, 'left' in sys.modules, '/left' in sys.path, "
        "'left' in os.environ, sys.getrecursionlimit(), signal.getsignal(2) == signal.SIG_IGN, os.path.exists('left')]"
    )
    expected = [False, False, False, "typing", False, False, False, 1000, False, False]
    for _ in range(2):
        assert run(sandbox, spoil).values == [1]
        assert run(sandbox, look).values == [expected]


def test_programs_do_not_see_that_their_caller_ignores_a_signal() -> None:
    """As behind nohup, or in the background of a script."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Sandbox() as sandbox:
            source = "import signal\ndef f(): return signal.getsignal(2) == signal.default_int_handler"
            assert run(sandbox, source).values == [True]
    finally:
        signal.signal(signal.SIGINT, usual)


def test_programs_draw_their_own_random_numbers(sandbox: Sandbox) -> None:
    draw = "import random, uuid, tempfile\ndef f(): return [random.random(), uuid.uuid4().hex]"
    assert run(sandbox, draw).values != run(sandbox, draw).values


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
    outcomes: list[ProgramResult | SandboxError] = []

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


@pytest.mark.parametrize("wait_s", [0.0, 0.01, 0.1])
def test_closing_ends_what_only_begins(wait_s: float) -> None:
    """Also where a server has not yet read what it should run."""
    sandbox = Sandbox()

    def work() -> None:
        with contextlib.suppress(SandboxError, FileNotFoundError):
            run(sandbox, "import time\ndef f(): time.sleep(1000)", 100.0)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(wait_s)
    sandbox.close()
    for thread in threads:
        thread.join(10.0)
    assert not any(thread.is_alive() for thread in threads)


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


CHANNEL = "import os, sys\nframe = sys._getframe()\nwhile 'channel' not in frame.f_locals: frame = frame.f_back\n"


END = "os.write(frame.f_locals['channel'], b'\\nend 0 0 0.000\\n')"


STUBBORN = {
    "stops itself": "import signal\ndef f(): signal.raise_signal(signal.SIGSTOP)",
    "sleeps on SIGTERM": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ndef f(): time.sleep(1000)",
    "closes every descriptor": "import os\ndef f(): os.closerange(0, 64)",
    "makes its channel not block and fills it": (
        CHANNEL + "os.set_blocking(frame.f_locals['channel'], False)\ndef f():\n    while True:\n"
        "        try: os.write(frame.f_locals['channel'], b'x' * 65536)\n        except BlockingIOError: pass"
    ),
    "says again and again that it has ended": f"{CHANNEL}def f():\n    while True: {END}",
    "says that it took no time": CHANNEL + "def f():\n    " + END.replace("0.000", "-1e999") + "\n    os._exit(0)",
    "recurses without end": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()",
    "overflows the stack": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    a = []\n"
        "    for _ in range(10**6): a = [a]\n    return repr(a)"
    ),
    "objects that make objects when they end": (
        "class A:\n    def __del__(s): s.x = [A() for _ in range(2)]\ndef f():\n    while True: A()"
    ),
    "digits of a long integer": "import sys\nsys.set_int_max_str_digits(0)\ndef f(): raise ValueError(10 ** 10**8)",
    "a list of itself": "def f():\n    a = []\n    a.append(a)\n    return a",
    "threads that spin": (
        "import _thread\ndef f():\n    while True: pass\n_thread.stack_size(65536)\n"
        "for _ in range(5): _thread.start_new_thread(f, ())"
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
        (
            "import gc\nfor it in gc.get_objects():\n"
            "    if isinstance(it, list) and it and isinstance(it[0], list): it.clear()"
        ),
    ],
)
def test_what_a_program_leaves_for_its_end_is_not_waited_for(filtered: Sandbox, leftover: str) -> None:
    """Nor does it change what is asked next: at most that fails."""
    started = time.monotonic()
    outcome = filtered.run(Job([f"def f(x): return x\n{leftover}"], entry_point="f", inputs=[[1], [2]]), 2.0)
    assert time.monotonic() - started < 5
    assert outcome.values in ([1, 2], [])
