"""Maths answers: equal, unequal, and those that hang or kill whoever reads them. Real math-verify in real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.benchmarks import get
from evaluation.graders.maths import MathsWorker
from evaluation.graders.notation import whole_number
from evaluation.grading import Grader
from evaluation.loading import load
from evaluation.records import Problem


def problem(gold: str) -> Problem:
    return Problem("1", "test", "maths", "?", gold)


def judge(grader: Grader, gold: str, answer: str) -> str:
    return grader.grade([(problem(gold), f"\\boxed{{{answer}}}", "stop")])[0].verdict


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("073", "73"), ("73.0", "73"), ("73.", "73"), ("1,040", "1040"), ("1{,}040", "1040"), ("1\\,040", "1040"),
        ("10,\\!080", "10080"), ("$540$,", "540"), ("-0", "0"), ("+5", "5"), ("- 5", "-5"), ("73\\ ", "73"),
        ("000", "0"), ("9" * 6000, "9" * 6000), ("1,2", None), ("73.5", None), ("73 apples", None), ("1.5e3", None),
        ("\\frac{4}{2}", None), ("1 2", None), ("٣", None), ("", None),
    ],
)  # fmt: skip
def test_whole_numbers(text: str, number: str | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("73", "073", "correct"),
        ("73", "7300", "wrong"),
        ("\\frac12", "0.5", "correct"),
        ("\\frac{1}{2}", "\\dfrac{2}{4}", "correct"),
        ("\\frac{1}{2}", "\\frac{1}{3}", "wrong"),
        ("2\\sqrt3", "\\sqrt{12}", "correct"),
        ("2\\sqrt3", "2", "wrong"),  # the gold as bare text would be read as 2
        ("\\left(3,\\frac{\\pi}{2}\\right)", "(3, \\pi/2)", "correct"),
        ("\\left(3,\\frac{\\pi}{2}\\right)", "3", "wrong"),
        ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", "wrong"),  # both round to 0
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}", "wrong"),
        ("0.0000001", "0.0000002", "wrong"),
        ("2\\sqrt{3}", "3.4641016", "correct"),  # written to seven decimals
        ("1500", "1.5e3", "correct"),
        ("11,\\! 111,\\! 111,\\! 100", "11111111100", "correct"),
        ("10\\%", "0.1", "correct"),
        ("10\\%", "10", "correct"),
        ("5", "5\\text{ cm}", "correct"),
        ("60", "60^\\circ", "correct"),
        ("$69$,$84$", "84, 69", "correct"),
        ("1,3,5", "\\{5,3,1\\}", "correct"),
        ("1,3,5", "1,3", "wrong"),
        ("1,3", "1,3,5", "wrong"),
        ("(1,2)", "(2,1)", "wrong"),
        ("$(1,2),(3,4)$", "(3,4),(1,2)", "correct"),
        ("(1,2)", "[1,2]", "wrong"),
        ("(1,2)", "(1,2]", "wrong"),
        ("$(-\\infty, 0) \\cup\\{1\\}$.", "\\{1\\} \\cup (-\\infty,0)", "correct"),
        ("f(x)=2x", "f(x)=3x", "wrong"),
        ("\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}", "\\begin{pmatrix} -2/6 \\\\ 2/3 \\end{pmatrix}", "correct"),
        ("\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}", "\\begin{pmatrix} 2/3 \\\\ -1/3 \\end{pmatrix}", "wrong"),
        ("8", "x = 8", "correct"),
        ("8", "\\frac{16}{2}.", "correct"),
        ("8", "eight", "wrong"),
        ("8", "\\text{none}", "wrong"),
        ("8", "\\frac{", "no_answer"),
        ("8", "9" * 3000, "wrong"),
    ],
)
def test_verdicts(grader: Grader, gold: str, answer: str, verdict: str) -> None:
    assert judge(grader, gold, answer) == verdict


@pytest.mark.slow
def test_what_hangs_is_a_timeout_and_costs_one_item() -> None:
    hostile = ["9^{9^{9^9}}", "(10^6)!", "(" * 900 + ")" * 900, "10^{10^{10}}"]
    with Grader(workers=2, maths_timeout_s=1.0) as grader:
        judge(grader, "1/2", "0.25")  # start a worker outside the measurement
        items = [(problem("1/2"), f"\\boxed{{{answer}}}", "stop") for answer in hostile]
        items += [(problem("1/2"), f"\\boxed{{\\frac{{\\sqrt{{{i * i}}}}}{{{2 * i}}}}}", "stop") for i in range(2, 30)]
        started = time.monotonic()
        graded = grader.grade(items)
        assert time.monotonic() - started < 60
        assert {result.verdict for result in graded[:4]} == {"timeout"}
        assert {result.verdict for result in graded[4:]} == {"correct"}
        assert grader.maths_workers_started >= len(hostile)


def test_a_worker_that_dies_costs_one_item(tmp_path: Path) -> None:
    worker = MathsWorker(5.0)
    assert worker.compare("1/2", "0.5") == ("correct", "")
    process = worker._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    verdict, detail = worker.compare("1/2", "0.5")
    assert verdict == "grader_error"
    assert "died" in detail or "ended (status -9)" in detail
    assert worker.compare("1/2", "0.5") == ("correct", "")
    worker.close()


def test_a_gold_answer_that_cannot_be_read_is_the_graders_error(grader: Grader) -> None:
    result = grader.grade([(problem("\\text{}"), "\\boxed{5}", "stop")])[0]
    assert result.verdict == "grader_error"
    assert "cannot read the gold answer" in result.detail


def test_workers_end_when_their_parent_is_killed() -> None:
    program = (
        "import time\nfrom evaluation.graders.maths import MathsWorker\n"
        "worker = MathsWorker(60.0)\nworker.compare('1/2', '0.5')\n"
        "print(worker._process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":  # ended; nobody here reaps orphans
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def test_integers_are_fast_and_need_no_worker() -> None:
    with Grader(workers=1) as grader:
        items = [(problem(str(i)), f"so it is \\boxed{{{i % 500:03d}}}", "stop") for i in range(2000)]
        started = time.perf_counter()
        graded = grader.grade(items)
        assert time.perf_counter() - started < 1
        assert [result.verdict for result in graded] == ["correct"] * 500 + ["wrong"] * 1500
        assert grader.maths_workers_started == 0


def test_real_golds_equal_themselves_and_not_their_neighbours(benchmark_data: Path) -> None:
    problems = [*load(get("aime24"), "test", benchmark_data), *load(get("amc23"), "test", benchmark_data)]
    with Grader(workers=1) as grader:
        right = grader.grade([(p, f"\\boxed{{{int(p.gold):03d}}}", "stop") for p in problems])
        wrong = grader.grade([(p, f"\\boxed{{{int(p.gold) + 1}}}", "stop") for p in problems])
    assert {result.verdict for result in right} == {"correct"}
    assert {result.verdict for result in wrong} == {"wrong"}
