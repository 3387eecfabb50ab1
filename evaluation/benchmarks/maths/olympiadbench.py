"""OlympiadBench (He et al., 2024, arXiv:2402.14008): the 674 open-ended text problems of OE_TO_maths_en_COMP."""

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import maths_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

NAME = "olympiadbench"
SIZE = 674
WITHDRAWN = "2592"
"""Some copies hold this problem too, whose answer is a tolerance; the published part does not."""


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: id, problem or question, and answer (text) or final_answer (a list of one text).

    A gold answer may hold several values ("$69$,$84$"): all of them have to be given, in any order. Its unit is in a
    column of its own and need not be given.
    """
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"{NAME}, row {number}"
        name = str(row.get("id", "")).removeprefix(f"{NAME}-")
        if not name:
            raise RecordError(f"{where}: no column 'id'; the row has {sorted(row)}")
        if name == WITHDRAWN:
            continue
        problems.append(
            Problem(
                id=name,
                benchmark=NAME,
                kind="maths",
                prompt=maths_prompt(text(row, ("problem", "question"), where).strip()),
                gold=_gold(row, where),
                meta={column: row.get(column) for column in ("subfield", "answer_type", "is_multiple_answer", "unit")},
            )
        )
    return check_set(problems, SIZE, NAME)


def _gold(row: Mapping[str, Any], where: str) -> str:
    answers = row.get("final_answer")
    if answers is None:
        return text(row, ("answer",), where).strip()
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise RecordError(f"{where}: final_answer must be a list of texts, not {answers!r}")
    return ",".join(answer.strip() for answer in answers)


BENCHMARK = Benchmark(
    name=NAME,
    kind="maths",
    size=SIZE,
    digest="707deb78c94d",
    sources={
        "test": Source(
            local=f"{NAME}/{NAME}.jsonl.gz",
            hub="Hothan/OlympiadBench",
            hub_config="OE_TO_maths_en_COMP",
            hub_split="train",
        )
    },
    parse=parse,
)
