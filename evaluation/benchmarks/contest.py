"""Rows of the AIME and the AMC: a problem, an integer answer and a link that says which problem of which contest it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.rows import check_set, integer, maths_prompt, text
from evaluation.records import Problem, RecordError

LINK = re.compile(r"/(\d{4})_(?:AIME|AMC)_([^/_]+)_Problems/Problem_(\d+)")
ANSWER_COLUMNS = ("answer", "final_answer")


def parse_contest(name: str, year: str, contests: tuple[str, ...], rows: Iterable[Mapping[str, Any]], expected: int) -> list[Problem]:
    """Problems in the order of the contests, with ids such as aime24-II-04 whatever id the source gives them.

    `contests` holds the contests' names as in the links ("I", "12A"). The problem's link decides its id, so the local file and the
    hub's data set, which number their rows differently, yield the same ids in the same order.
    """
    problems: list[tuple[int, int, Problem]] = []
    for number, row in enumerate(rows, start=1):
        where = f"{name}, row {number}"
        link = text(row, ("url", "link"), where)
        found = LINK.search(link)
        if found is None or found[1] != year or found[2] not in contests:
            raise RecordError(f"{where}: the link {link!r} is not one of a {year} contest ({', '.join(contests)})")
        answer = next((row[column] for column in ANSWER_COLUMNS if row.get(column) is not None), None)
        problem = Problem(
            id=f"{name}-{found[2]}-{int(found[3]):02d}",
            benchmark=name,
            kind="maths",
            prompt=maths_prompt(text(row, ("problem", "question"), where).strip()),
            gold=integer(answer, where),
            meta={"url": link},
        )
        problems.append((contests.index(found[2]), int(found[3]), problem))
    problems.sort(key=lambda item: item[:2])
    return check_set([problem for *_, problem in problems], expected, name)
