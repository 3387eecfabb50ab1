"""The filter of system calls refuses what reaches out, and leaves threads, files and memory."""

from pathlib import Path

import pytest

from evaluation.sandbox import Sandbox
from tests.evaluation.sandbox.cases import run, value_of

REFUSED = {
    "fork": "os.fork()",
    "another program": "os.execv('/bin/true', ['true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "__import__('subprocess').run(['true'])",
    "socket": "__import__('socket').socket()",
    "local socket": "__import__('socket').socket(1)",
    "socket pair of another family": "call(53, 2, 1, 0, (ctypes.c_int * 2)())",
    "local socket pair, with more in the upper half": "call(53, ctypes.c_long(2**32 + 1), 1, 0, (ctypes.c_int * 2)())",
    "connect a pair anew": "PAIR[0].connect('x')",
    "bind a pair": "PAIR[0].bind('\\0x')",
    "listen on a pair": "PAIR[0].listen()",
    "send to an address": "PAIR[0].sendto(b'x', 'x')",
    "send to an address without a lower half": "call(44, PAIR[0].fileno(), b'x', 1, 0, ctypes.c_long(2**32), 2)",
    "send descriptors": "__import__('socket').send_fds(PAIR[0], [b'x'], [0])",
    "send many": "call(307, PAIR[0].fileno(), None, 0, 0)",
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


@pytest.mark.parametrize("attack", REFUSED)
def test_the_filter_refuses(filtered: Sandbox, attack: str) -> None:
    source = (
        "import ctypes, os, socket\nPAIR = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "libc = ctypes.CDLL(None, use_errno=True)\ndef call(*arguments):\n"
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


def test_the_filter_hides_the_call_whose_flags_it_cannot_see(filtered: Sandbox) -> None:
    clone3 = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def f(): return [libc.syscall(435, None, 0), ctypes.get_errno()]"
    )
    assert run(filtered, clone3).values == [[-1, 38]]


def test_the_filter_leaves_threads_files_and_abort(filtered: Sandbox) -> None:
    source = "import threading, tempfile, os\nfrom concurrent.futures import ThreadPoolExecutor\n"
    assert value_of(filtered, source, "list(ThreadPoolExecutor(4).map(abs, [-1, -2]))") == [1, 2]
    assert value_of(filtered, source, "tempfile.TemporaryFile().write(b'abc')") == 3
    assert "signal 6" in run(filtered, "import os\ndef f(): os.abort()").detail


def test_asyncio_works(filtered: Sandbox) -> None:
    """Its loop wakes itself by a pair of sockets, without which what waits for a thread would hang."""
    source = (
        "import asyncio, time\nasync def g(n):\n    await asyncio.sleep(0.01)\n    return n\n"
        "async def main():\n    results = await asyncio.gather(g(1), g(2), asyncio.to_thread(time.sleep, 0.01))\n"
        "    async with asyncio.timeout(1), asyncio.TaskGroup() as group: task = group.create_task(g(3))\n"
        "    return [*results, task.result(), await asyncio.get_running_loop().run_in_executor(None, abs, -4)]\n"
        "def f(): return asyncio.run(main())"
    )
    assert run(filtered, source, 4.0).values == [[1, 2, None, 3, 4]]
