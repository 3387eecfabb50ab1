"""A second opinion on maths: math-verify as its authors drive it, on gold answer and completion as they are.

It finds the answer by its own rules and shares none of ours (boxes, notation, units, equality), only the library that
both read LaTeX and do algebra with. Where it disagrees, one of the two is wrong, and somebody has to look. It decides
no score. This module is also the program of the process that runs it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from evaluation.graders.maths import MathsWorker
from evaluation.graders.serving import serve
from evaluation.metrics.estimates import wilson_interval
from evaluation.records import Generation, Score, Verdict


class DirectWorker(MathsWorker):
    """One process that drives math-verify, started when it is first needed. Used by one thread at a time."""

    program = __name__

    def compare(self, gold: str, answer: str) -> tuple[Verdict, str]:
        """Verdict on a whole completion, with a detail where there is none: `timeout` or `grader_error`."""
        return self._judged({"gold": gold, "completion": answer.rpartition("</think>")[2]})


def second_opinion(
    generations: Sequence[Generation], scores: Sequence[Score], workers: int, timeout_s: float
) -> dict[str, Any]:
    """How often math-verify alone disagrees with the scores on what is right, and where.

    Args:
        generations: of maths problems.
        scores: theirs, in the same order.
        workers: completions judged at once, each in a process of its own.
        timeout_s: seconds on the clock for one completion.

    Returns:
        `by` (library and version), `n` (samples with both opinions), `disagreements` with their share `value` and its
        95 % interval, Wilson's (`low`, `high`; all three None where n is 0), `without_opinion` (samples that
        math-verify took too long for or whose gold answer it cannot read), and `rows`: of each disagreement
        problem_id, sample, gold, extracted, verdict and second_verdict.
    """
    with ThreadPoolExecutor(workers) as pool:
        drivers = [DirectWorker(timeout_s) for _ in range(workers)]
        try:
            chunks = [range(start, len(scores), workers) for start in range(workers)]

            def judge(driver: DirectWorker, places: range) -> list[Verdict]:
                return [driver.compare(scores[place].gold, generations[place].completion)[0] for place in places]

            verdicts: dict[int, Verdict] = {}
            for places, found in zip(chunks, pool.map(judge, drivers, chunks), strict=True):
                verdicts |= dict(zip(places, found, strict=True))
        finally:
            for driver in drivers:
                driver.close()
    both = [(score, verdicts[n]) for n, score in enumerate(scores) if verdicts[n] in ("correct", "wrong")]
    rows = [
        {"problem_id": score.problem_id, "sample": score.sample, "gold": score.gold, "extracted": score.extracted}
        | {"verdict": score.verdict, "second_verdict": verdict}
        for score, verdict in both
        if (score.verdict == "correct") != (verdict == "correct")
    ]
    low, high = wilson_interval(len(rows), len(both)) if both else (None, None)
    return {
        "by": f"math-verify {version('math-verify')}",
        "n": len(both),
        "disagreements": len(rows),
        "value": len(rows) / len(both) if both else None,
        "low": low,
        "high": high,
        "without_opinion": len(scores) - len(both),
        "rows": rows,
    }


def main() -> None:
    """Serve {gold, completion} with {equal, detail} or {error} (see `evaluation.graders.serving`)."""
    from math_verify import parse, verify

    def judge(item: dict[str, Any]) -> dict[str, Any]:
        # The library's own time limits are alarms whose end reads "not equal"; the caller has one.
        gold = parse(f"\\boxed{{{item['gold']}}}", parsing_timeout=None)
        if not gold:
            return {"error": "the gold answer cannot be read"}
        answer = parse(item["completion"], parsing_timeout=None)
        return {"equal": bool(verify(gold, answer, timeout_seconds=None)), "detail": ""}

    serve(judge)


if __name__ == "__main__":
    main()
