"""Hostile programs that read and print get no better verdict than they earn, at either level of isolation."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.graders.code import CodeGrader
from evaluation.records import Problem
from evaluation.sandbox import Job
from tests.evaluation.graders.programs.cases import RIGHT, cases
from tests.evaluation.sandbox.cases import KINDS, sandbox_of_kind, sandbox_processes, servers

SECRET = "8641975320"
TESTS = cases(("1 2\n", f"{SECRET}\n"), ("3 4\n", f"{SECRET}\n"))
FIND = (
    "import gc, sys\nown = globals()\nframe = sys._getframe(1)\nparts = []\n"
    "while frame: parts += [frame.f_locals, frame.f_globals]; frame = frame.f_back\n"
    "parts += [part for part in gc.get_objects()[-3000:] if part is not own and part is not parts]\ntext = ''\n"
    "for part in parts:\n"
    "    try: text += repr(part)\n    except BaseException: pass\n"
)
"""Gathers the text of everything that Python can reach in the process."""
HOSTILE = {
    "prints a verdict": "print('PASS\\nOK\\ncorrect')",
    "writes results to every descriptor": (
        "import os\nfor fd in range(1, 64):\n"
        "    try: os.write(fd, b'\\n0 done \"\" MQ==\\nready\\nend 0 0 0.1\\n')\n    except OSError: pass"
    ),
    "forges the harness' own line": (
        "import os, sys\nframe = sys._getframe()\nwhile 'token' not in frame.f_locals: frame = frame.f_back\n"
        "local = frame.f_locals\n"
        "os.write(local['channel'], f'\\n{local[\"token\"]} 0 done \"\" MQ==\\n{local[\"token\"]} stop\\n'.encode())\n"
        "os._exit(0)"
    ),
    "says that nothing is left to run": (
        "import os, sys\nframe = sys._getframe()\nwhile 'token' not in frame.f_locals: frame = frame.f_back\n"
        "os.write(frame.f_locals['channel'], f'\\n{frame.f_locals[\"token\"]} stop\\n'.encode())\nos._exit(0)"
    ),
    "looks for what is expected": f"{FIND}i = text.find(str(91468)[::-1])\nprint(text[i:i+10] if i >= 0 else 0)",
    "looks for it in files": (
        "import os\nfound = ''\nfor top in ('.', '/tmp', '/proc/self', '/proc/1', '/work', '/root', '/home'):\n"
        "    for folder, _, names in os.walk(top):\n        for name in names[:50]:\n"
        "            try: text = os.read(os.open(f'{folder}/{name}', os.O_RDONLY | os.O_NONBLOCK), 10**6)\n"
        "            except OSError: continue\n"
        "            if b'86' + b'419' in text: found = text[text.find(b'86' + b'419'):][:10].decode()\nprint(found)"
    ),
    "reads the memory of its parent": (
        "import os\ntry: print(open(f'/proc/{os.getppid()}/mem', 'rb').read(1))\nexcept OSError: print(0)"
    ),
    "forks": "import os\nfor _ in range(9): os.fork()\nprint(1)",
    "starts another program": "import subprocess\nprint(subprocess.run(['/bin/true']))",
    "kills everything": "import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\nprint(1)",
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint(1)",
    "reaches the network": "import socket\ns = socket.create_connection(('127.0.0.1', 80))\nprint(s)",
    "output without end": "while True: print('x' * 10**6)",
    "output by way of the descriptor": "import os\nwhile True: os.write(1, b'x' * 10**6)",
    "errors without end, caught": (
        "import os\nwhile True:\n    try: os.write(1, b'x' * 10**6)\n    except BaseException: pass"
    ),
    "memory": "x = []\nwhile True: x.append(' ' * 10**9)\nprint(x)",
    "sleeps": "import time\ntime.sleep(1000)\nprint(1)",
    "closes its output": "import os\nos.close(1)\nprint(1)",
    "catches everything": (
        "while True:\n    try:\n        while True: print\n    except BaseException: pass"
    ),
    "a thread that goes on": (
        "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\nprint(1)"
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS[:2])
def judging(request: pytest.FixtureRequest) -> Iterator[CodeGrader]:
    with sandbox_of_kind(request.param, memory_mib=4096) as sandbox:
        yield CodeGrader(sandbox, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_neither_pass_nor_hang(judging: CodeGrader, name: str) -> None:
    started = time.monotonic()
    verdict, detail = judging.grade(Problem("1", "test", "code", "?", "", TESTS), HOSTILE[name])
    assert verdict in ("wrong", "timeout"), detail
    assert time.monotonic() - started < 30
    assert judging.grade(Problem("1", "test", "code", "?", "", cases(("1 2", "3"))), RIGHT)[0] == "correct"


def test_what_is_expected_is_in_no_part_of_the_process(judging: CodeGrader) -> None:
    """The search finds what is there, the input, and so would find the output."""
    search = FIND + "i = text.find(str(4297531)[::-1])\nprint(text[i:i+10] if i >= 0 else 0)"
    tests = cases(("1357924680\n", "1357924680\n"))
    assert judging.grade(Problem("1", "test", "code", "?", "", tests), search)[0] == "correct"
    verdict, detail = judging.grade(Problem("1", "test", "code", "?", "", TESTS), HOSTILE["looks for what is expected"])
    assert (verdict, detail) == ("wrong", f"case 1: '0' instead of '{SECRET}'")


def test_a_case_leaves_neither_processes_nor_descriptors(judging: CodeGrader) -> None:
    job = Job(["print(input())"], cases=[b"1", b"2"])
    judging.sandbox.run_cases(job, 1.0, 100)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert [result.output for result in judging.sandbox.run_cases(job, 1.0, 100)] == [b"1\n", b"2\n"]
    assert len(os.listdir("/proc/self/fd")) == before
    ours = servers(os.getpid())
    assert not [pid for pid, parent in sandbox_processes().items() if parent in ours]
    assert not list(Path(judging.sandbox._folder).glob("tmp*"))
