"""The process behind `MathsWorker`: receives {gold, answer, cpu_s} and sends {equal, detail} or {error}, as JSON, over
the connection whose descriptor is its argument, and ends when that is closed."""

import json
import logging
import resource
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from evaluation.graders.answers.algebra import Sympy, UnreadableGold
from evaluation.graders.answers.equality import Equality

MEMORY = 4 * 2**30  # bytes of address space; ends an answer such as 10^{10^{10}} before it takes the machine's


def main() -> None:
    """Serve until the connection is closed."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failures: set[str] = set()

    def collect(record: logging.LogRecord) -> bool:
        """Keep the kinds of the exceptions that math-verify swallows and reports only to its debug log."""
        if record.exc_info is not None and record.exc_info[0] is not None:
            failures.add(record.exc_info[0].__name__)
        return False

    logging.getLogger("math_verify.grader").setLevel(logging.DEBUG)
    logging.getLogger("math_verify.grader").addFilter(collect)
    algebra = Sympy()
    equality = Equality(algebra)

    def judge(gold: str, answer: str) -> dict[str, Any]:
        try:
            equal = equality(gold, answer)
        except UnreadableGold:
            if not gold:
                return {"error": "cannot read the gold answer, of which nothing is left"}
            return {"equal": False, "detail": "algebra cannot read the gold answer, so it is compared as text"}
        except Exception as error:  # of sympy, for what it cannot compare
            if isinstance(error, MemoryError):
                raise
            return {"equal": False, "detail": type(error).__name__}
        if not equal and "MemoryError" in failures:
            return {"error": "MemoryError"}
        detail = equality.reason or (
            "algebra cannot read the answer" if algebra.unread else ", ".join(sorted(failures))
        )
        return {"equal": equal, "detail": "" if equal else detail}

    connection = Connection(int(sys.argv[1]))
    reply: dict[str, Any] = {"ready": True}
    while True:
        connection.send_bytes(json.dumps(reply).encode())
        try:
            item = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # Ends a worker that hangs after its parent was killed; while the parent lives, its deadline comes first.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + item["cpu_s"]) + 1, resource.RLIM_INFINITY))
        failures.clear()
        try:
            reply = judge(item["gold"], item["answer"])
        except MemoryError:
            reply = {"error": "MemoryError"}


if __name__ == "__main__":
    main()
