"""The process behind `MathsWorker`: receives {gold, answer, cpu_s} and sends {equal, detail} or {error}, as JSON, over
the connection whose descriptor is its argument, and ends when that is closed."""

import json
import logging
import resource
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Expr

MEMORY = 4 * 2**30  # bytes of address space; ends an answer such as 10^{10^{10}} before it takes the machine's
RELATIVE = 1e-6  # numbers further apart than this share of the larger are never equal


def _apart(gold: Any, answer: Any) -> bool:
    """Whether two numbers differ by more than a millionth of the larger.

    math-verify rounds to six decimals, so that 1/2^99 and 1/2^98, or 2e-7 and 1e-7, are the same to it.
    """
    if not (isinstance(gold, Expr) and isinstance(answer, Expr) and gold.is_number and answer.is_number):
        return False
    left, right = gold.evalf(30), answer.evalf(30)
    if not (left.is_comparable and right.is_comparable):
        return False
    if not (left.is_finite and right.is_finite):
        return bool(left != right)  # the difference of two infinities is no number
    return bool(abs(left - right) > max(abs(left), abs(right)) * RELATIVE)


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

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addFilter(collect)
    forms = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def judge(gold_text: str, answer_text: str) -> dict[str, Any]:
        # No time limits of math-verify's own: they are alarms whose end reads "not equal".
        gold = parse(f"${gold_text}$", extraction_config=forms, parsing_timeout=None)
        if not gold:
            return {"error": f"math-verify cannot read the gold answer {gold_text[:100]!r}"}
        answer = parse(f"\\boxed{{{answer_text}}}", extraction_config=forms, parsing_timeout=None)
        # 1 < x < 2 is (1, 2) whichever of the two is the gold answer.
        equal = bool(verify(gold, answer, allow_set_relation_comp=True, timeout_seconds=None))
        if equal and "%" not in gold_text + answer_text and _apart(gold[0], answer[0]):
            return {"equal": False, "detail": "equal only when rounded"}
        if not equal and "MemoryError" in failures:
            return {"error": "MemoryError"}
        detail = "math-verify cannot read the answer" if not answer else ", ".join(sorted(failures))
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
