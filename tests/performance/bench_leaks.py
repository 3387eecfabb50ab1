"""Ten thousand random programs in a row through one grader: what it holds before and afterwards, in processes,
descriptors, files and memory.

VCORE_BENCH_PROGRAMS says how many (10,000). They are right, wrong, slow, loud, crashing, or try to leave something
behind: processes, threads, files, memory. Some are C++, compiled each for itself.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from evaluation.grading import Grader
from evaluation.records import Problem
from tests.evaluation.sandbox.test_reliability import memory_kib

NUMBER = int(os.environ.get("VCORE_BENCH_PROGRAMS", "10000"))
WARM_UP, BATCH = 200, 200
READ = "a, b = map(int, input().split())\n"
SUM = READ + "print(a + b)\n"
WORK = "import time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass\n"
PROGRAMS: dict[str, tuple[int, str]] = {
    "right": (12, SUM),
    "right, in a process a case": (6, "import os\nos.environ['N'] = '{n}'\n" + SUM),
    "wrong": (10, READ + "print(a + b + {n} % 7 + 1)"),
    "wrong at last": (6, READ + "print(a + b if a < 50 else {n})"),
    "slow": (8, WORK + SUM),
    "endless": (1, SUM + "while True: pass  # {n}"),
    "sleeps": (1, "import time\ntime.sleep(0.05)\n" + SUM),
    "crashes": (5, SUM + "[][{n}]"),
    "ends by a signal": (3, SUM + "import os\nos.abort()  # {n}"),
    "kills itself": (3, SUM + "import os\nos.kill(os.getpid(), 9)  # {n}"),
    "recurses": (2, SUM + "def f(n): return f(n + 1)\nf({n})"),
    "leaves": (4, SUM + "import os, sys\nsys.stdout.flush()\nos._exit({n} % 2)"),
    "prints much": (5, "print('{n}' + 'x' * 100_000)\n" * 5),
    "prints without end": (1, "while True: print('{n}' * 1000)"),
    "writes files": (4, "for k in range(20): open(f'left-{n}-{{k}}', 'w').write('x' * 1000)\n" + SUM),
    "writes to /tmp": (3, "import os\nos.mkdir('/tmp/left-{n}')\nopen('/tmp/left-{n}/x', 'w').write('x')\n" + SUM),
    "forks": (4, "import os\nif os.fork() == 0:\n    while True: pass\n" + SUM),
    "starts a program": (3, "import subprocess\nsubprocess.Popen(['sleep', '{n}'])\n" + SUM),
    "leaves a session": (2, "import os\nos.setsid()\nos.fork()\n" + SUM),
    "starts threads": (4, "import threading\nfor _ in range(20): threading.Thread(target=input).start()\n" + SUM),
    "shares memory": (
        2,
        "from multiprocessing import shared_memory as s\ns.SharedMemory(create=True, size={n})\n" + SUM,
    ),
    "opens sockets": (2, "import socket\na, b = socket.socketpair()\nsocket.socket().bind(('', {n}))\n" + SUM),
    "takes memory": (3, "x = bytearray({n} % 100 * 2**20)\n" + SUM),
    "has no memory": (2, SUM + "x = bytearray({n} * 2**40)"),
    "is no program": (3, "print({n}"),
}
CPP: dict[str, tuple[int, str]] = {
    "C++, right": (
        2,
        '#include <cstdio>\nint main() {{ int a, b; scanf("%d %d", &a, &b); printf("%d", a + b); }} // {n}',
    ),
    "C++, wrong": (1, '#include <cstdio>\nint main() {{ printf("%d", {n}); }}'),
    "C++, forks": (1, "#include <unistd.h>\nint main() {{ if (fork() == 0) for (;;) {n}; for (;;) fork(); }}"),
    "C++, crashes": (1, "int main() {{ volatile int* p = (int*) {n}; return *p; }}"),
    "C++, does not compile": (1, "int main() {{ return x{n}; }}"),
}
CASES = [{"input": f"{a} {b}\n", "output": f"{a + b}\n"} for a, b in ((1, 2), (30, 4), (99, 1))]


class Held(NamedTuple):
    """What the grader and the servers of its sandbox hold."""

    processes: int
    descriptors: int
    descriptors_of_servers: int
    files: int
    shared_memory: int


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that these started."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        try:
            text = Path(f"/proc/{entry}/stat").read_text() if entry.isdigit() else ""
        except OSError:  # it has just ended
            continue
        if text:
            parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, todo = set[int](), [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found


def held(folder: Path) -> Held:
    servers = descendants(os.getpid())
    return Held(
        len(servers),
        len(os.listdir("/proc/self/fd")),
        sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in servers),
        sum(1 for path in folder.rglob("*") if "binaries" not in path.parts),
        len(list(Path("/dev/shm").glob("psm_*"))),
    )


def binaries(folder: Path) -> int:
    """Compiled programs, of which so many are kept at most."""
    return sum(1 for path in folder.rglob("binaries/*"))


@pytest.mark.timeout(0)
def test_ten_thousand_random_programs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    python = Problem("sum", "bench", "code", "?", "", {"cases": CASES, "time_limit_s": 0.5})
    cpp = Problem("sum in C++", "bench", "code", "?", "", {"cases": CASES, "time_limit_s": 0.5, "language": "cpp"})
    kinds = {**PROGRAMS, **CPP}
    choices, verdicts = random.Random(0), dict[str, Counter[str]]()
    memory, memory_of_servers = list[int](), list[int]()
    started = time.perf_counter()
    with Grader(len(os.sched_getaffinity(0)), memory_mib=1024) as grader:
        before = None
        for first in range(0, WARM_UP + NUMBER, BATCH):
            names = choices.choices(list(kinds), [weight for weight, _ in kinds.values()], k=BATCH)
            items = [
                (cpp if name in CPP else python, f"```\n{kinds[name][1].format(n=first + n + 1)}\n```", "stop")
                for n, name in enumerate(names)
            ]
            for name, graded in zip(names, grader.grade(items), strict=True):
                verdicts.setdefault(name, Counter())[graded.verdict] += 1
            memory.append(memory_kib())
            memory_of_servers.append(sum(map(memory_kib, descendants(os.getpid()))))
            if before is None and first + BATCH >= WARM_UP:
                before, started = held(tmp_path), time.perf_counter()
        spent, after, kept = time.perf_counter() - started, held(tmp_path), binaries(tmp_path)
        level = grader.sandbox_level
    half = len(memory) // 2
    print(f"\n  {NUMBER:,} programs in {spent:.0f} s at the level {level}, {len(kinds)} kinds")
    print(f"  before {before}\n  after  {after}\n  closed {held(tmp_path)}; {kept} compiled programs were kept")
    for what, kib in (("the grader", memory), ("its servers", memory_of_servers)):
        shown = ", ".join(f"{one / 1024:.1f}" for one in kib[:: max(1, len(kib) // 8)])
        print(f"  memory of {what}, MiB, in equal steps: {shown}")
    for name, counts in verdicts.items():
        print(f"  {name:28} {dict(counts)}")
    assert after == before
    assert held(tmp_path)[0] == held(tmp_path).files == 0
    assert memory[-1] - memory[half] < 4096
    assert not any(counts["grader_error"] for counts in verdicts.values())
    for name in ("wrong", "wrong at last", "crashes", "endless", "C++, wrong", "C++, forks", "C++, does not compile"):
        assert not verdicts[name]["correct"], name
    for name in ("right", "right, in a process a case", "slow", "C++, right"):
        assert set(verdicts[name]) == {"correct"}, name
