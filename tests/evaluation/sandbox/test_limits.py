"""Time, memory, files and threads of a program are limited."""

import threading

import pytest

from evaluation.sandbox import Sandbox
from tests.evaluation.sandbox.cases import run


def test_a_file_cannot_grow_without_end(sandbox: Sandbox) -> None:
    assert run(sandbox, "def f(): open('big', 'wb').write(bytes(2**25))").detail.startswith(
        "OSError: [Errno 27] File too large"
    )


def test_the_folder_of_its_own_has_room_for_few_files(isolated: Sandbox) -> None:
    fill = "import os\ndef f():\n    for n in range(100_000): os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))"
    assert run(isolated, fill, 5.0).detail.startswith("OSError: [Errno 28] No space left")


def test_an_endless_loop_ends_by_its_cpu_time(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "def f():\n    while True: pass")
    assert (outcome.status, outcome.detail) == ("limit", "CPU time limit of 1 s")
    assert 0.5 <= outcome.cpu_s < 2.0  # the limit counts clock ticks, which a busy machine loses


def test_the_cpu_limit_cannot_be_raised_or_caught(sandbox: Sandbox) -> None:
    source = (
        "import resource, signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "try: resource.setrlimit(resource.RLIMIT_CPU, (900, 900))\nexcept ValueError: pass\ndef f():\n"
        "    while True: pass"
    )
    assert run(sandbox, source).status == "limit"


MANY_THREADS = (
    "import _thread\ndef f():\n    _thread.stack_size(32768)\n    lock = _thread.allocate_lock()\n    lock.acquire()\n"
    "    for started in range(2000):\n        try: _thread.start_new_thread(lock.acquire, ())\n"
    "        except RuntimeError: break\n"
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
        "import os, time\ndef f():\n    for started in range(1000):\n        try:\n"
        "            if os.fork() == 0: time.sleep(1000)\n"
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
