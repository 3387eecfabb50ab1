"""Thousands of programs in a row leave nothing behind: no process, no file, no descriptor, no memory."""

import os
import random
import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evaluation.sandbox import Job, Sandbox

KINDS = {
    "returns a value": "def f(): return [{n}] * ({n} % 3000)",
    "raises": "def f(): raise ValueError({n})",
    "leaves": "import os\ndef f(): os._exit({n} % 7)",
    "exits": "import sys\ndef f(): sys.exit({n})",
    "ends by a signal": "import os\ndef f(): os.abort()",
    "kills itself": "import os\ndef f(): os.kill(os.getpid(), 9)",
    "starts a thread": "import threading\nthreading.Thread(target=print).start()\ndef f(): return {n}",
    "is no program": "def f(: {n}",
    "writes a file": "def f(): return open('left', 'w').write('x' * {n})",
    "takes memory": "def f(): return len(bytearray({n} * 1000))",
    "has no memory": "def f(): return bytearray(2**40)",
    "tries to fork": "import os\ndef f(): return os.fork()",
}
MOST, SECONDS = 4000, 15.0


def held(sandbox: Sandbox) -> dict[str, object]:
    """What the grader and the sandbox's servers hold, but for memory."""
    servers = [server.pid for server in sandbox._children._idle]
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "descriptors of servers": [len(os.listdir(f"/proc/{pid}/fd")) for pid in servers],
        "processes": [Path(f"/proc/{pid}/task/{pid}/children").read_text() for pid in servers],
        "files": sorted(path.name for path in sandbox._folder.iterdir()),
    }


def memory_kib(pid: int | str = "self") -> int:
    """Resident memory of a process, in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.slow
def test_thousands_of_programs_leave_nothing_behind() -> None:
    """As many as end within 15 s, up to 4,000."""
    choices, ended = random.Random(0), Counter[str]()
    deadline = time.monotonic() + SECONDS

    def run(number: int) -> str:
        source = choices.choice(list(KINDS.values())).format(n=number)
        return sandbox.run(Job([source], expressions=["f()"]), 1.0).status

    with Sandbox(memory_mib=512) as sandbox, ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(100)))
        before, memory = held(sandbox), [memory_kib()]
        servers = {server.pid: memory_kib(server.pid) for server in sandbox._children._idle}
        for first in range(100, MOST, 100):
            ended.update(pool.map(run, range(first, first + 100)))
            memory.append(memory_kib())
            if time.monotonic() > deadline:
                break
        assert held(sandbox) == before
        assert all(memory_kib(pid) - kib < 1024 for pid, kib in servers.items())
    total = sum(ended.values())
    growth = memory[-1] - memory[len(memory) // 2]
    print(f"\n  {total} programs, {dict(ended)}; {growth} KiB more in the second half, {memory[-1]} KiB in all")
    assert set(ended) == {"done", "raised", "died"}
    assert total >= 100
    assert growth < 4096
