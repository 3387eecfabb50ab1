"""Programs in C++: compiled and run in the sandbox at every level, judged like others, contained like others."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.custom_problems import program_tests
from evaluation.graders.code import CodeGrader
from evaluation.graders.extraction import cpp_program
from evaluation.grading import Grader
from evaluation.records import Problem, RecordError
from evaluation.sandbox import CompileError, Job, Sandbox, compiler
from tests.evaluation.graders.programs.cases import cases
from tests.evaluation.sandbox.cases import KINDS, sandbox_of_kind, servers

SECRET = "8641975320"
SUM = cases(("1 2\n", "3\n"), ("10 -4\n", "6\n"), ("5 5\n", "10\n"), language="cpp")
RIGHT = '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }'


@pytest.fixture(scope="module", params=KINDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_of_kind(request.param) as shared:
        yield shared


def verdict(sandbox: Sandbox, source: str, tests: dict[str, Any] = SUM) -> tuple[str, str]:
    return CodeGrader(sandbox, 1.0).grade(Problem("1", "test", "code", "?", "", tests), source)


def body(text: str) -> str:
    """A program of one function."""
    headers = ("cerrno", "cstdio", "cstdlib", "cstring", "fcntl.h", "signal.h", "sys/ptrace.h", "sys/socket.h")
    includes = "".join(f"#include <{name}>\n" for name in (*headers, "unistd.h", "vector", "sys/mman.h"))
    return f"{includes}int main() {{ {text} }}"


def printed(sandbox: Sandbox, source: str, given: bytes = b"") -> bytes:
    with sandbox.compiled(source) as program:
        [result] = sandbox.run_cases(Job([], cases=[given], program=program), 2.0, 10_000)
    assert result.status == "done", result
    return result.output


VERDICTS = {
    "right": (RIGHT, ("correct", "")),
    "wrong": (RIGHT.replace("a + b", "a - b"), ("wrong", "case 1")),
    "right once": (RIGHT.replace("a + b", "a == 10 ? 7 : a + b"), ("wrong", "case 2")),
    "no C++": ("int main() { return x; }", ("wrong", "compile error: program.cpp:1")),
    "a loop": (body("volatile int x = 0; for (;;) ++x;"), ("timeout", "case 1")),
    "a crash": (body("raise(SIGSEGV);"), ("wrong", "case 1: ended with signal 11")),
    "an exit code": (body("return 3;"), ("wrong", "case 1: ended with exit code 3")),
    "much memory": (body("std::vector<char> v(1 << 30, 1); return v[5];"), ("wrong", "case 1: ended with signal 6")),
    "output without end": (body('for (;;) puts("xxxxxxxxxxxxxxxxxxxx");'), ("wrong", "case 1: ended with signal 25")),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(sandbox: Sandbox, name: str) -> None:
    source, (expected, start) = VERDICTS[name]
    found, detail = verdict(sandbox, source)
    assert found == expected, detail
    assert detail.startswith(start)


def test_a_deep_recursion_a_thread_and_the_library_work(sandbox: Sandbox) -> None:
    source = (
        "#include <iostream>\n#include <map>\n#include <thread>\n"
        "int depth(int n) { volatile char place[64]; place[0] = 1; "
        "return n ? depth(n - 1) + place[0] : 0; }\nint main() { std::string s; std::map<std::string, int> m; "
        "while (std::cin >> s) m[s]++; std::thread([&] { for (auto& [k, v] : m) std::cout << k << v << ' '; }).join(); "
        "std::cout << depth(300000); }"
    )
    assert printed(sandbox, source, b"b a b\n") == b"a1 b2 300000"


ATTACKS = {
    "fork": 'puts(fork() < 0 ? strerror(errno) : "out");',
    "clone": 'puts(syscall(56, 17, 0, 0, 0, 0) < 0 ? strerror(errno) : "out");',
    "a socket": 'puts(socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerror(errno) : "out");',
    "a signal": 'puts(kill(getppid(), 0) < 0 && kill(-1, 9) < 0 ? strerror(errno) : "out");',
    "ptrace": 'puts(ptrace(PTRACE_ATTACH, getppid(), 0, 0) < 0 ? strerror(errno) : "out");',
    "another program by its descriptor": (
        'char* a[] = {0}; int at = open("/bin/true", O_PATH); '
        'puts(syscall(322, at, "", a, a, 0x1000) < 0 ? strerror(errno) : "out");'
    ),
    "memory of another": 'puts(syscall(310, getppid(), 0, 0, 0, 0, 0) < 0 ? strerror(errno) : "out");',
    "a new namespace": 'puts(syscall(272, 0x10000000) < 0 ? strerror(errno) : "out");',
    "a session": 'puts(setsid() < 0 ? strerror(errno) : "out");',
}


def test_what_the_filter_refuses_is_refused(sandbox: Sandbox) -> None:
    if not sandbox.filtered:
        pytest.skip("NOT TESTED: no filter of system calls on this machine")
    blocks = "".join(f"{{ {text} }}\n" for text in ATTACKS.values())
    said = printed(sandbox, body(blocks)).decode().splitlines()
    assert dict(zip(ATTACKS, said, strict=True)) == dict.fromkeys(ATTACKS, "Operation not permitted")


def test_no_file_can_be_read_written_or_started(sandbox: Sandbox, tmp_path: Path) -> None:
    if not sandbox.ruled and sandbox.level == "rlimits":
        pytest.skip("NOT TESTED: this level promises nothing of files")
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    paths = [str(secret), "/etc/passwd", "/proc/self/mem", f"/proc/{os.getpid()}/environ", "/usr/lib/os-release"]
    reads = "".join(f'printf("%d ", open("{path}", O_RDONLY));' for path in paths)
    writes = "".join(f'printf("%d ", open("{path}/x", O_CREAT | O_WRONLY, 0600));' for path in ("/", "/usr", tmp_path))
    copy = (  # of itself: a program that it wrote must not start
        'char b[65536]; char* a[] = {0}; int in = open("/program", O_RDONLY), out = open("copy", O_CREAT | O_WRONLY, '
        '0755); for (long n; (n = read(in, b, sizeof b)) > 0;) write(out, b, n); close(out); execve("copy", a, a);'
    )
    starts = 'char* e[] = {0}; printf("%d ", execve("/bin/true", e, e)); '
    found = printed(sandbox, body(f"{reads}{writes}{starts}{copy}"))
    assert found.split() == [b"-1"] * (len(paths) + 4)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_nothing_of_the_grader_is_in_the_process(sandbox: Sandbox) -> None:
    """Its memory holds no Python, its environment and descriptors nothing; what is expected is nowhere."""
    source = body(
        'for (int fd = 3; fd < 64; ++fd) if (fcntl(fd, F_GETFD) >= 0) puts("a descriptor"); '
        'extern char** environ; if (*environ) puts(*environ); if (write(1, "\\nready\\nend 0 0 0.1\\n", 20)) {}'
    )
    assert printed(sandbox, source) == b"\nready\nend 0 0 0.1\n\x00"
    tests = cases(("1 2\n", f"{SECRET}\n"), language="cpp")
    assert verdict(sandbox, source, tests)[0] == "wrong"


@pytest.mark.parametrize(
    "source",
    [
        '#include "SECRET"\nint main() {}',
        "#include <SECRET>\nint main() {}",
        'asm(".section .rodata\\n.globl it\\nit: .incbin \\"SECRET\\"\\n"); extern char it[];\n'
        '#include <cstdio>\nint main() { printf("%.10s", it); }',
        '#include "/proc/self/environ"\nint main() {}',
    ],
)
def test_the_compiler_reads_no_secrets(sandbox: Sandbox, tmp_path: Path, source: str) -> None:
    if not sandbox.ruled and sandbox.level == "rlimits":
        pytest.skip("NOT TESTED: this level promises nothing of files")
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with (
        pytest.raises(CompileError, match=r"No such file|Permission denied|Assembler messages") as refused,
        sandbox.compiled(source.replace("SECRET", str(secret))),
    ):
        pass
    assert SECRET not in str(refused.value)


BOMBS = {
    "time": "template<int n> struct A { static const long v = A<n-1>::v + A<n-2>::v; }; constexpr long f(long n) "
    "{ long s = 0; for (long i = 0; i < n; ++i) s ^= i; return s; }\n"
    + "\n".join(f"static_assert(f(200000 + {n}) != 1);" for n in range(4000))
    + "\nint main() {}",
    "memory": "#define A(x) x x x x x x x x x x\n#define B(x) A(A(A(A(A(A(A(A(x))))))))\nint main() { B(B(1;)) }",
    "output": "int a[1 << 28] = {1}; int main() { return a[5]; }",
    "depth": '#include "program.cpp"\nint main() {}',
    "messages": "int main() { " + "x; " * 100_000 + "}",
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_for_the_compiler_end_within_its_limits(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, bomb: str
) -> None:
    monkeypatch.setattr("evaluation.sandbox.sandbox.COMPILE_S", 2.0)
    with pytest.raises(CompileError) as refused, sandbox.compiled(BOMBS[bomb]):
        pass
    assert 0 < len(str(refused.value)) <= 300
    for server in servers(os.getpid()):  # nothing that it started is left
        assert Path(f"/proc/{server}/task/{server}/children").read_text() == ""


def test_a_source_is_compiled_once_and_forgotten_in_the_end(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "KEPT", 2)
    before = sandbox._binaries.compiled
    for _ in range(3):
        assert verdict(sandbox, RIGHT + "// once")[0] == "correct"
    assert sandbox._binaries.compiled == before + 1
    with sandbox.compiled(RIGHT + "// once") as program:
        for number in range(3):
            verdict(sandbox, f"{RIGHT}// {number}")
        assert program.exists()  # as long as it is used
    assert len(list(program.parent.iterdir())) == 2


def test_the_program_is_found_in_a_completion() -> None:
    other = "```python\nprint(1)\n```\n"
    assert cpp_program(f"So:\n```cpp\n{RIGHT}\n```\nIt runs so:\n```\n./a.out\n```\n{other}") == RIGHT + "\n"
    assert cpp_program(f"```c++\nint f();\n```\n```C++\n{RIGHT}\n```") == RIGHT + "\n"
    assert cpp_program(f"<think>```cpp\nint main() {{}}\n```</think>\n```cpp\n{RIGHT}") == RIGHT
    assert cpp_program(RIGHT) == RIGHT
    assert cpp_program(other) is None


def test_a_completion_in_cpp_is_graded_and_one_in_python_is_no_answer() -> None:
    problem = Problem("1", "test", "code", "?", "", SUM)
    answers = [f"```cpp\n{RIGHT}\n```", "```python\na, b = map(int, input().split())\nprint(a + b)\n```"]
    with Grader(workers=1) as grader:
        graded = grader.grade([(problem, answer, "stop") for answer in answers])
    assert [one.verdict for one in graded] == ["correct", "no_answer"]


def test_tests_in_cpp_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program_tests(SUM, "x") == SUM
    for wrong, why in (({"language": "rust"}, "language is 'rust'"), ({"function": "f"}, "function: is for Python")):
        with pytest.raises(RecordError, match=why):
            program_tests(SUM | wrong, "x")
    compiler.find_compiler.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        with pytest.raises(RecordError, match="need g\\+\\+, which this machine does not have"):
            program_tests(SUM, "x")
    finally:
        compiler.find_compiler.cache_clear()
