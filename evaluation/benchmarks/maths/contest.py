"""The AIME and the AMC: a problem, an integer answer, and a link that names the contest and the problem's number."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, integer, text
from evaluation.records import Problem, RecordError

LINK = re.compile(r"/(\d{4})_(?:AIME|AMC)_([^/_]+)_Problems/Problem_(\d+)")

Row = Mapping[str, Any]


def contest_benchmark(
    name: str,
    year: str,
    contests: tuple[str, ...],
    size: int,
    digest: str,
    source: Source,
    prepare: Callable[[Iterable[Row]], Iterable[Row]] = iter,
) -> Benchmark:
    """The problems of a year's contests, in their order, with ids such as aime24-II-04 whatever id a source gives them.

    Its rows have the columns problem or question, answer or final_answer, and url or id. A problem's link decides its
    id, so the local file and the hub's data set, which number their rows differently, yield the same ids in the same
    order. Where no row has a link, the rows' own ids and order remain.

    Args:
        year: as in the links.
        contests: names as in the links ("I", "12A"), in their order.
        prepare: what is done to the rows first.
    """

    def parse(split: str, rows: Iterable[Row]) -> list[Problem]:
        problems: list[tuple[tuple[int, int], Problem]] = []
        for number, row in enumerate(prepare(rows), start=1):
            where = f"{name}, row {number}"
            id, place = _identify(name, year, contests, row, where)
            answer = next((row[column] for column in ("answer", "final_answer") if row.get(column) is not None), None)
            prompt = maths_prompt(text(row, ("problem", "question"), where).strip())
            problems.append((place, Problem(id, name, "maths", prompt, integer(answer, where))))
        problems.sort(key=lambda item: item[0])
        return check_set([problem for _, problem in problems], size, name)

    return Benchmark(name=name, kind="maths", size=size, digest=digest, sources={"test": source}, parse=parse)


def _identify(name: str, year: str, contests: tuple[str, ...], row: Row, where: str) -> tuple[str, tuple[int, int]]:
    """The id of a problem and its place in the order: (contest, number)."""
    if row.get("url") is None:
        if row.get("id") is None:
            raise RecordError(f"{where}: no column 'url' or 'id'; the row has {sorted(row)}")
        return f"{name}-{row['id']}", (0, 0)
    link = LINK.search(str(row["url"]))
    if link is None or link[1] != year or link[2] not in contests:
        raise RecordError(f"{where}: the link {row['url']!r} is not one of a {year} contest ({', '.join(contests)})")
    return f"{name}-{link[2]}-{int(link[3]):02d}", (contests.index(link[2]), int(link[3]))
