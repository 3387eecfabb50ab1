"""C++: compiling a source, and running the program that it became on cases, in a process each.

A program that is run has replaced the Python that isolated it, so nothing of ours is in its memory, and it holds three
descriptors: its input, its output and /dev/null. How it ended is said by the process that watches it.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from json.encoder import encode_basestring_ascii
from signal import SIG_DFL, SIGKILL, SIGPIPE, SIGXFSZ, signal

from evaluation.sandbox.child import cases, isolation

TYPE_CHECKING = False  # the name that type checkers know
if TYPE_CHECKING:
    from typing import Any, NoReturn

SOURCE, PROGRAM, MESSAGES = "program.cpp", "program", "messages"
MOST_MESSAGES = 2**16


def compile_program(order: dict[str, Any], channel: int, token: str) -> None:
    """Compile the order's source by its command, and write the program, or what the compiler says, as a case's
    result."""
    with open(SOURCE, "w", encoding="utf-8", errors="replace") as file:
        file.write(order["sections"][0])
    command = order["command"]
    environment = {"PATH": f"{os.path.dirname(command[0])}:/usr/bin:/bin", "TMPDIR": os.getcwd(), "LC_ALL": "C"}
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, MESSAGES, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    status = os.waitpid(os.posix_spawn(command[0], command, environment, file_actions=actions), 0)[1]
    with open(MESSAGES, encoding="utf-8", errors="replace") as file:
        lines = file.read(MOST_MESSAGES).splitlines()
    if status == 0:
        with open(PROGRAM, "rb") as binary:
            result, ended, detail = binary.read(), "done", ""
    else:
        wrong = next((line for line in lines if "error" in line), next(filter(str.strip, lines), f"status {status}"))
        result, ended, detail = b"", "raised", wrong.replace("\n", " ")[:300]
    head = f"\n{token} 0 {ended} {encode_basestring_ascii(detail)} "
    cases.write(channel, head.encode() + b2a_base64(result))


def run_program_on_cases(order: dict[str, Any], channel: int) -> None:
    """Run the order's program on its cases, one after the other, until one does not end well or they took `enough_s`
    CPU seconds; and write what `cases.run_cases` writes, and how the last one ended."""
    spent = 0.0
    for number, case in enumerate(order["cases"]):
        files = cases.open_files({"cases": [case]})
        assert files is not None
        reads, says = os.pipe()
        pid = os.fork()
        if pid == 0:
            start(order, files, says)
        os.close(says)
        trouble = os.read(reads, 1000)
        os.close(reads)
        if trouble:
            os.write(channel, trouble + b"\n")
            return
        if number == 0:
            os.write(channel, b"ready\n")
        _, status, usage = os.wait4(pid, 0)
        took_s = usage.ru_utime + usage.ru_stime
        spent += took_s
        if status != 0 or took_s > order["limit_s"]:
            signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else SIGKILL if status == 0 else 0
            exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
            os.write(channel, f"\nend {int(signal_number)} {exit_code} {took_s:.3f}\n".encode())
            return
        printed = cases.taken(files[1], order["most"])
        cases.write(channel, f'\n{order["token"]} {number} done "" '.encode() + b2a_base64(printed))
        for file in files:
            os.close(file)
        if spent > order["enough_s"] or order["filter"] is None:  # without it, processes could be left for the next
            break
    cases.write(channel, f"\n{order['token']} stop\n\nend 0 0 {spent:.3f}\n".encode())


def start(order: dict[str, Any], files: cases.Files, says: int) -> NoReturn:
    """Give up everything, and become the program. Where that fails, say why."""
    try:
        isolation.confine(order)
        for number in (SIGPIPE, SIGXFSZ):  # which Python ignores
            signal(number, SIG_DFL)
        os.lseek(files[0], 0, os.SEEK_SET)
        os.dup2(files[0], 0)
        os.dup2(files[1], 1)
        os.execve(order["program"], [PROGRAM], {})
    except OSError as error:
        os.write(says, f"the program cannot be started: {error}".encode())
    os._exit(1)
