"""The process behind `MathsWorker`: reads {gold, answer, cpu_s} a line, writes {equal, detail} or {error} a line, ends with its input."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from typing import Any, TextIO

MEMORY = 4 * 2**30
"""Bytes of address space; an answer such as 10^{10^{10}} is ended by it instead of taking the machine's memory."""

RELATIVE = 1e-6
"""Numbers further apart than this share of the larger are never equal."""


class _Failures(logging.Handler):
    """Collects the exceptions that math-verify swallows and reports only to its debug log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[0] is not None:
            self.names.append(record.exc_info[0].__name__)


def _apart(gold: Any, answer: Any) -> bool:
    """Whether two numbers differ by more than a millionth of the larger.

    math-verify rounds to six decimals, so that 1/2^99 and 1/2^98, or 2e-7 and 1e-7, are the same to it.
    """
    from sympy import Expr

    if not (isinstance(gold, Expr) and isinstance(answer, Expr) and gold.is_number and answer.is_number):
        return False
    left, right = gold.evalf(30), answer.evalf(30)
    if not (left.is_comparable and right.is_comparable):
        return False
    if not (left.is_finite and right.is_finite):
        return bool(left != right)  # the difference of two infinities is no number
    return bool(abs(left - right) > max(abs(left), abs(right)) * RELATIVE)


def main() -> None:
    """Serve until the input ends."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failures = _Failures()
    for name in ("math_verify.parser", "math_verify.grader"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(failures)
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
        if not equal and "MemoryError" in failures.names:
            return {"error": "MemoryError"}
        detail = "math-verify cannot read the answer" if not answer else ", ".join(sorted(set(failures.names)))
        return {"equal": equal, "detail": "" if equal else detail}

    replies = sys.stdout
    sys.stdout = sys.stderr  # nothing a library prints may get between the replies
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        item = json.loads(line)
        # Ends a worker that hangs after its parent was killed; while the parent lives, its deadline comes first.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + item["cpu_s"]) + 1, resource.RLIM_INFINITY))
        failures.names.clear()
        try:
            _reply(replies, judge(item["gold"], item["answer"]))
        except MemoryError:
            _reply(replies, {"error": "MemoryError"})


def _reply(stream: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=stream, flush=True)


if __name__ == "__main__":
    main()
