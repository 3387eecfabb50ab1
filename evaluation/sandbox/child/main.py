"""The processes of a child: one that serves, and for each program one that stays outside, one that watches, one that
runs it.

The server lives as long as the sandbox, so that Python starts once and not for every program; it forks, and holds
nothing of any program. The next process stays outside the process namespace until the caller has read enough. The third
is the first process of that namespace, so whatever the program left behind ends with it; it says how the program ended.
Only the fourth runs code of the program, and it can reach none of the others. Each dies with the one before it, and the
server when its caller ends.

Lines written to the named pipe `result` of a program's folder: `ready` once all limits hold (or what went wrong); TOKEN
and [status, detail, number of values] as JSON, then a line for each value, or the lines of `cases`; at the end `end
SIGNAL EXITCODE CPU_SECONDS`. The token tells a result from what a program writes there by accident; it need not be
secret from one that looks for it.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import time
from signal import SIG_BLOCK, SIGINT, SIGKILL, SIGTERM, default_int_handler, pthread_sigmask, signal

from evaluation.sandbox.child import cases, isolation, native, packages
from evaluation.sandbox.child.program import run_program

TYPE_CHECKING = False  # the name that type checkers know
if TYPE_CHECKING:
    from typing import Any, NoReturn

KILL_WAIT_S = 1.0  # for a process to end its own after SIGTERM; more than it ever needs
PRELOADED = "bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "operator", "re", "typing"
"""Modules that many programs import, loaded once. None keeps a state that programs could have in common."""


def serve(found: tuple[Any, ...]) -> None:
    """Run a program for each folder, a line of standard input, until another byte comes; then end what is left of it,
    and write a byte. The end of the input ends that, too.

    Args:
        found: the packages that programs may import, as `packages.load` takes them.
    """
    signal(SIGINT, default_int_handler)  # which Python leaves out where its caller ignores it, as behind nohup
    for name in PRELOADED:
        __import__(name)
    failure = packages.load(*found)
    gc.freeze()  # what is here is left alone by the collections of programs: pages that stay as they are are not copied
    isolation.set_traceable(False)
    server = os.getpid()
    orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - as long as the process
    while folder := orders.readline().decode().rstrip("\n"):
        channel = os.open(f"{folder}/result", os.O_WRONLY | os.O_NONBLOCK)  # which fails where nobody reads any more
        os.set_blocking(channel, True)
        os.unlink(f"{folder}/result")  # or a program that can name it could read it
        if failure:
            os.write(channel, f"{failure}\n".encode())
        asked, answered = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            if failure:
                os._exit(1)
            os.close(asked[0])
            os.close(answered[1])
            stay_outside(folder, channel, server, (asked[1], answered[0]))
        for descriptor in (channel, asked[1], answered[0]):
            os.close(descriptor)
        map_users(pid, asked[0], answered[1])
        orders.read(1)
        end(pid)
        os.write(1, b".")


def map_users(pid: int, asked: int, answered: int) -> None:
    """Map the users of a child's namespace where it asks for that. One that ends, or asks for nothing, closes the
    pipe."""
    with contextlib.suppress(OSError):  # it sees the end of the other pipe, and says so
        if os.read(asked, 1):
            isolation.map_users(pid)
            os.write(answered, b"1")
    os.close(asked)
    os.close(answered)


def end(pid: int) -> None:
    """End a process that stays outside, which ends its own, then what is left of its process group, and reap it."""
    # Not reaped before its group is gone: until then the number of the group cannot become another's. And no pidfd,
    # which some container runtimes lack.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, SIGTERM)
        deadline, running = time.monotonic() + KILL_WAIT_S, os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, pid, running) is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        os.killpg(pid, SIGKILL)
    os.waitpid(pid, 0)


def stay_outside(folder: str, channel: int, server: int, users: tuple[int, int]) -> NoReturn:
    """The process that isolates what follows, forks, and waits. `users` are the pipes to have users mapped."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        with open(f"{folder}/order", "rb") as file:
            order = marshal.load(file)
        os.chdir(folder)
        if order["level"] == "namespaces":
            isolation.set_traceable(True)  # or only root could map its users
            isolation.enter_namespaces(order, users)
        else:
            isolation.adopt_orphans()  # see `end_all`
        os.close(users[0])
        os.close(users[1])
        isolation.set_traceable(False)
        isolation.die_with_parent()
        if os.getppid() != server:  # it ended before it was watched
            os._exit(1)
        pid = os.fork()
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    if pid == 0:
        watch(channel, order)
    # Ending by a signal would leave the child to process 1, which in a container may be a program that reaps none.
    signal(SIGTERM, lambda *_: os.kill(pid, SIGKILL))
    # Not reaped before the signal is held off: the handler would fail, or end another process that has the number by
    # then. A process that an exception ends takes longer than most programs, for Python clears its whole memory. And
    # SIG_IGN in place of the handler would not do: a signal of just then finds none, and Python prints an OSError.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    pthread_sigmask(SIG_BLOCK, (SIGTERM,))
    end_all()
    os._exit(0)


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
    """The process that watches: fork the program's, and say how it ended."""
    try:
        isolation.die_with_parent()
        if order["binary"]:
            native.run_program_on_cases(order, channel)
            os._exit(0)
        files = cases.open_files(order)
        pid = os.fork()
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    if pid == 0:
        confine(channel, order, files)
    _, status, usage = os.wait4(pid, 0)
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    if files is not None and status == 0:
        cases.report_rest(channel, files)
    os.write(channel, f"\nend {signal_number} {exit_code} {usage.ru_utime + usage.ru_stime:.3f}\n".encode())
    os._exit(0)


def confine(channel: int, order: dict[str, Any], files: cases.Files | None) -> NoReturn:
    """The process of the program: give up everything, run the program, send the result."""
    try:
        isolation.confine(order)
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    packages.begin_anew()
    token = order.pop("token")
    os.write(channel, b"ready\n")
    if order["command"]:
        native.compile_program(order, channel, token)
    elif files is not None:
        cases.run_cases(order, channel, files, token)
    else:
        cases.write(channel, f"{token} {run_program(order)}\n".encode())
    os._exit(0)
