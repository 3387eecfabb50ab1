"""The process behind `MathsWorker`: receives {gold, answer, cpu_s} and sends {equal, detail} or {error}, as JSON, over
the connection whose descriptor is its argument, and ends when that is closed."""

import logging
from typing import Any

from evaluation.graders.answers.algebra import Sympy, UnreadableGold
from evaluation.graders.answers.equality import Equality
from evaluation.graders.serving import serve


def main() -> None:
    """Serve until the connection is closed."""
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

    def judge(item: dict[str, Any]) -> dict[str, Any]:
        failures.clear()
        try:
            equal = equality(item["gold"], item["answer"])
        except UnreadableGold:
            if not item["gold"]:
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

    serve(judge)


if __name__ == "__main__":
    main()
