"""IMO-AnswerBench (Luong et al., 2025, EMNLP; 2025.emnlp-main.1794): 400 olympiad problems with short answers.

The file is `answerbench_v2.csv` of February 2026, in which eleven answers and some wordings of the first version were
corrected; the hub's copies may be of either, and the digest tells. Its authors have a model judge the answers. Here the
maths grader compares them, and so an answer of `BY_WORDS` counts as right only where it is written as in the file: a
condition in words, a family of solutions with a constant whose name is the writer's choice, or an equality that holds
only for what the problem says of its letters. `where: {checkable: true}` leaves these out; with them a score is a lower
bound.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

NAME = "imo_answerbench"
SIZE = 400
PREFIX = "imo-bench-"
CATEGORIES = {"Algebra", "Combinatorics", "Geometry", "Number theory"}
BY_WORDS = frozenset(
    f"{category}-{number:03}"
    for category, numbers in {
        "algebra": (20, 24, 29, 31, 34, 35, 36, 38, 41, 51, 69, 81, 84, 87, 91, 97, 98, 99),
        "combinatorics": (34, 52, 59, 64),
        "geometry": (39, 78),
        "number_theory": (5, 6, 7, 9, 10, 11, 14, 16, 29, 33, 34, 36, 37, 47, 48, 53, 54, 61, 69, 79, 81),
    }.items()
    for number in numbers
)
"""Problems whose answers algebra does not decide, 45 of them."""


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: Problem ID, Problem, Short Answer."""
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"{NAME}, row {number}"
        name = text(row, ("Problem ID",), where).strip().removeprefix(PREFIX)
        question, answer = text(row, ("Problem",), where).strip(), text(row, ("Short Answer",), where).strip()
        if answer in CATEGORIES:
            question, answer = _apart(question, where)
        meta = {"category": name.rpartition("-")[0], "checkable": name not in BY_WORDS}
        problems.append(Problem(name, NAME, "maths", maths_prompt(question), answer, meta=meta))
    return check_set(problems, SIZE, NAME)


def _apart(question: str, where: str) -> tuple[str, str]:
    """A question and its answer, which a misplaced quotation mark in the published file joins (algebra-036): asked as
    it stands, the question would give its answer away."""
    question, comma, answer = question.rpartition("\n,")
    if not comma:
        raise RecordError(f"{where}: the answer is the name of a category")
    return question.strip(), answer.strip().removesuffix('"').strip()


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZE,
    digest="c1535980da73",
    sources={
        "test": Source(
            local=f"{NAME}/answerbench_v2.csv",
            hub="Hwilner/imo-answerbench",
            hub_split="train",
            origin="imobench/answerbench_v2.csv of google-deepmind/superhuman on GitHub",
            loose_csv=True,
        )
    },
    parse=parse,
)
