"""The grader as a whole: order, progress, speed, repeatability, and an end."""

import threading
import time
from concurrent.futures import CancelledError

import pytest

from evaluation.benchmarks import get
from evaluation.graders.code import CodeGrader
from evaluation.grading import Grader, fingerprint, grader_version
from evaluation.loading import load
from evaluation.records import Problem


def maths(gold: str) -> Problem:
    return Problem(gold, "test", "maths", "?", gold)


def test_mixed_items_come_back_in_order_with_progress(grader: Grader) -> None:
    code = load(get("tiny_code"), "test", None, 6, 1)
    words = load(get("word_problems"), "test", None, 6, 1)
    items = []
    for one, other in zip(code, words, strict=True):
        items += [
            (one, f"```python\n{one.gold}\n```", "stop"),
            (other, f"\\boxed{{{other.gold}}}", "stop"),
            (other, "nothing", "length"),
        ]
    items.append((words[0], "", "prompt_too_long"))
    seen: list[int] = []
    graded = grader.grade(items, seen.append)
    assert [result.verdict for result in graded] == ["correct", "correct", "no_answer"] * 6 + ["no_answer"]
    assert graded[0].extracted == code[0].gold + "\n"
    assert graded[1].extracted == words[0].gold
    assert seen == sorted(seen)
    assert seen[-1] == len(items)
    assert grader.grade(items) == graded


def test_nothing_to_grade(grader: Grader) -> None:
    assert grader.grade([]) == []


def test_a_step_of_rewards_is_fast(grader: Grader) -> None:
    """128 answers, a tenth of them no integers, as in a GRPO step: below 0.3 s once the workers run."""
    answers = [f"\\boxed{{{i}}}" if i % 10 else f"\\boxed{{\\frac{{{i}}}{{7}}}}" for i in range(128)]
    grader.grade([(maths("7"), "\\boxed{\\frac{1}{9}}", "stop"), (maths("7"), "\\boxed{\\frac{2}{9}}", "stop")])
    started = time.perf_counter()
    graded = grader.grade([(maths("7"), answer, "stop") for answer in answers])
    assert time.perf_counter() - started < 0.3
    assert [place for place, result in enumerate(graded) if result.verdict == "correct"] == [7]


@pytest.mark.slow
def test_thousands_of_calls_leave_no_threads_or_workers_behind(grader: Grader) -> None:
    grader.grade([(maths("1/2"), "\\boxed{0.5}", "stop")])
    threads, workers = threading.active_count(), grader.maths_workers_started
    for number in range(3000):
        grader.grade([(maths("1/2"), f"\\boxed{{{number}}}", "stop"), (maths("3"), f"\\boxed{{{number}}}", "stop")])
    assert threading.active_count() <= threads + 2
    assert grader.maths_workers_started <= max(workers, 2)


@pytest.mark.slow
def test_closing_ends_what_runs() -> None:
    asserts = {"entry_point": "f", "setup": "", "asserts": ["assert f() == 1"]}
    grader = Grader(workers=2, maths_timeout_s=60, code_timeout_s=60)
    sleeps = "```python\nimport time\ndef f(): time.sleep(600)\n```"
    items = [
        (Problem(str(number), "test", "code", "?", "", asserts), sleeps, "stop")
        for number in range(6)
        for _ in range(2)
    ]
    items.append((maths("1"), "\\boxed{9^{9^{9^9}}}", "stop"))
    told: list[BaseException] = []

    def wait() -> None:
        try:
            grader.grade(items)
        except CancelledError as error:
            told.append(error)

    caller = threading.Thread(target=wait)
    caller.start()
    time.sleep(3)
    started = time.monotonic()
    grader.close()
    caller.join(20)
    assert not caller.is_alive()
    assert told  # what had not begun never will
    assert time.monotonic() - started < 20


def test_what_keeps_programs_from_being_judged_is_told(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: CodeGrader, problem: Problem) -> float | None:
        raise RuntimeError("no costs today")

    monkeypatch.setattr(CodeGrader, "expected_cpu_s", broken)
    (problem,) = load(get("tiny_code"), "test", None, 1, 1)
    with pytest.raises(RuntimeError, match="no costs today"):
        grader.grade([(problem, f"```python\n{problem.gold}\n```", "stop")] * 3)


def test_no_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers: 0"):
        Grader(workers=0)


def test_fingerprints() -> None:
    assert fingerprint({"a": 1, "b": [2, None]}) == fingerprint({"b": [2, None], "a": 1})
    assert len(fingerprint({"a": 1})) == 12
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert grader_version("maths")["math_verify"]
