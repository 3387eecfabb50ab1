"""Running a program on cases, one after the other: what it prints for an input, or what a function of it returns.

Standard input and output of a case are real files, so `open(0)`, `os.read` and `os.fstat(0).st_size` work as they do
for a program that is started from a shell. They lie in memory and exist before the program's limits hold; its output
may be as long as any other file of it. A program that is run on standard input has new globals, files and settings of
the interpreter for each case; one whose function is called is run once. An exit ends the case, not the process.

For each case a line is written, TOKEN, number, status, detail as JSON and the output in base 64; after the last one, or
once the cases have taken `enough_s` CPU seconds or printed ENOUGH_BYTES, TOKEN and `stop`.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
import time
from binascii import b2a_base64
from json import loads
from json.encoder import encode_basestring_ascii

from evaluation.sandbox.child.program import describe, pack

TYPE_CHECKING = False  # the name that type checkers know
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Files = tuple[int, int]
"""Descriptors of what a program reads and prints."""
ENOUGH_BYTES = 8 * 2**20  # of lines, after which the next case is left to another process: a caller holds them all
RECURSION, DIGITS = sys.getrecursionlimit(), sys.get_int_max_str_digits()


def open_files(order: dict[str, Any]) -> Files | None:
    """The files of an order with cases; the input of the first is there, which may be longer than a program's files."""
    if not order["cases"]:
        return None
    files = os.memfd_create("input"), os.memfd_create("output")
    write(files[0], order["cases"][0])
    return files


def write(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def report_rest(channel: int, files: Files) -> None:
    """Write what the program printed in the case that it ended in."""
    write(channel, b"\nrest " + b2a_base64(taken(files[1], os.fstat(files[1]).st_size)))


def taken(output: int, most: int) -> bytes:
    """What was printed, and one byte more than `most` at most, from a file that is empty then."""
    data = os.pread(output, most + 1, 0)
    os.ftruncate(output, 0)
    os.lseek(output, 0, os.SEEK_SET)
    return data


def run_cases(order: dict[str, Any], channel: int, files: Files, token: str) -> None:
    """Run the cases of the order until one does not end well."""
    standard_input, output = files
    act: Callable[[bytes], bytes | None] | None = None
    sent = 0
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as a Python with `site` has them
    for number, case in enumerate(order["cases"]):
        if number:
            os.ftruncate(standard_input, 0)
            os.lseek(standard_input, 0, os.SEEK_SET)
            write(standard_input, case)
        os.lseek(standard_input, 0, os.SEEK_SET)
        reset(files, order["digits"])
        status, detail, result = "done", "", None
        try:
            if act is None:
                act = make_function(order) if order["function"] else make_program(order)
            result = act(case)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the case is not done
            status, detail = "raised", describe(error)
        printed = taken(output, order["most"])
        text = b2a_base64(printed if result is None else result)
        head = f"\n{token} {number} {status} {encode_basestring_ascii(detail)} "
        write(channel, head.encode() + text)
        sent += len(text)
        if status != "done":
            return
        if time.process_time() > order["enough_s"] or sent > ENOUGH_BYTES:
            break
    write(channel, f"\n{token} stop\n".encode())


def reset(files: Files, digits: int) -> None:
    """Give the next case standard input and output, and the interpreter's settings."""
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
    streams = {  # the program's own, which may use them until it ends
        "stdin": open(0, encoding="utf-8", closefd=False),  # noqa: SIM115
        "stdout": open(1, "w", encoding="utf-8", closefd=False),  # noqa: SIM115
        "stderr": open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False),  # noqa: SIM115
    }
    vars(sys).update(streams | {f"__{name}__": stream for name, stream in streams.items()})
    sys.argv = ["program.py"]
    sys.setrecursionlimit(RECURSION)
    sys.set_int_max_str_digits(digits or DIGITS)


def compiled(order: dict[str, Any]) -> list[Any]:
    """The sections of the order as code."""
    return [
        compile(source, f"<section {number}>", "exec", dont_inherit=True) if isinstance(source, str) else source
        for number, source in enumerate(order["sections"])
    ]


def make_program(order: dict[str, Any]) -> Callable[[bytes], None]:
    """What runs the program on the input that is there."""
    sections = compiled(order)

    def run(_: bytes) -> None:
        module = sys.modules["__main__"] = type(sys)("__main__")
        module.__dict__["__builtins__"] = builtins
        try:
            for code in sections:
                exec(code, module.__dict__)
        except SystemExit:
            pass  # whatever its code: what was printed decides
        except BaseException:
            with contextlib.suppress(Exception):
                flush()  # for a message
            raise
        finish()

    return run


def finish() -> None:
    """What Python does at its end: wait for threads, call what is registered, write what is printed."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    flush()


def flush() -> None:
    """Write what is printed, also by way of an object that the program put in the place of standard output."""
    for file in {id(file): file for file in (sys.stdout, sys.__stdout__)}.values():
        if file is not None and not getattr(file, "closed", False):
            file.flush()


def make_function(order: dict[str, Any]) -> Callable[[bytes], bytes]:
    """What calls the function with the arguments of an input, JSON, one a line; and the text of what it returns."""
    module = sys.modules["program"] = type(sys)("program")
    for code in compiled(order):
        exec(code, module.__dict__)
    # One object for all cases, as in LiveCodeBench's own grader.
    owner = module.Solution() if "Solution" in module.__dict__ else module
    function = getattr(owner, order["function"])

    def call(case: bytes) -> bytes:
        value = function(*[loads(line) for line in case.split(b"\n")])
        return pack(list(value) if isinstance(value, tuple) else value).encode()

    return call
