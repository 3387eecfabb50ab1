"""The processes of a child: one that stays outside, one that watches, one that runs the program.

The outermost process stays outside the process namespace and lives as long as the next one, or until SIGTERM. The
second is the first process of that namespace, so whatever the program left behind ends with it; it says how the program
ended. Only the third runs code of the program, and it can reach neither of the others. Each dies with the one before
it, and the first with its caller.

Lines written to the descriptor named on the command line: `ready` once all limits hold (or what went wrong); TOKEN and
[status, detail, number of values] as JSON, then a line for each value; `end SIGNAL EXITCODE CPU_SECONDS`. The token
tells a result from what a program writes there by accident; it need not be secret from one that looks for it.
"""

from __future__ import annotations

import marshal
import os
import sys

from evaluation.sandbox.child import isolation
from evaluation.sandbox.child.cpython_internals import SIG_IGN, SIGKILL, SIGTERM, signal
from evaluation.sandbox.child.program import run_program

TYPE_CHECKING = False  # the name that type checkers know; typing itself takes long to import
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main() -> None:
    """The outermost process: isolate what follows, fork, and wait."""
    channel = int(sys.argv[1])
    order = marshal.loads(sys.stdin.buffer.read())
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        if order["level"] == "namespaces":
            isolation.enter_namespaces(order["work"], order["roots"], order["own_user"])
        else:
            isolation.adopt_orphans()  # see `end_all`
        isolation.refuse_tracing()
        isolation.die_with_parent()
        if os.getppid() != order["caller"]:  # it ended before it was watched
            return
        pid = os.fork()
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        return
    if pid == 0:
        watch(channel, order)
    # Ending by a signal would leave the child to process 1, which in a container may be a program that reaps none.
    signal(SIGTERM, lambda *_: os.kill(pid, SIGKILL))
    os.waitpid(pid, 0)
    signal(SIGTERM, SIG_IGN)  # the number may be another's by now
    end_all()


def end_all() -> None:
    """End what the program left behind where no namespace has: every orphan became a child of this process."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for child in children():
                    os.kill(child, SIGKILL)
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Processes whose parent is this one."""
    pids = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            pids.append(int(name))
    return pids


def watch(channel: int, order: dict[str, Any]) -> NoReturn:
    """The second process: fork the program's, and say how it ended."""
    try:
        isolation.die_with_parent()
        pid = os.fork()
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    if pid == 0:
        confine(channel, order)
    _, status, usage = os.wait4(pid, 0)
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    os.write(channel, f"\nend {signal_number} {exit_code} {usage.ru_utime + usage.ru_stime:.3f}\n".encode())
    os._exit(0)


def confine(channel: int, order: dict[str, Any]) -> NoReturn:
    """The third process: give up everything, run the program, send the result."""
    try:
        # Signals to its own group must not reach the outermost process. Without namespaces, the group's end is its end.
        if order["level"] == "namespaces":
            os.setsid()
        isolation.drop_privileges(order["own_user"])
        isolation.die_with_parent()
        isolation.limit(order["cpu_s"], order["memory"], order["threads"])
        isolation.restrict_files(order["rules"])
        isolation.filter_calls(order["filter"])
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    token = order.pop("token")
    os.write(channel, b"ready\n")
    text = run_program(order)
    data = memoryview(f"{token} {text}\n".encode())
    while data:
        data = data[os.write(channel, data) :]
    os._exit(0)
